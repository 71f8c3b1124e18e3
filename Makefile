# RipTide: `make`, `make check`, `make demo`; `make help` lists the rest.
#
#   O=dir         where everything is built (default: build, build-address, build-thread, build-debug)
#   CC=gcc|clang  the compiler
#   SAN=address   address, leak and undefined-behaviour sanitizers;  SAN=thread  the thread sanitizer
#   DEBUG=1       no optimisation
#   COMPRESSION=0 without lz4 and zstd: values are stored as they are, compressed ones of others are refused
#   METRICS=0     modules keep no counters and histograms of their own; figures of tenants and clients stay
#   V=1           show the commands
#
# A folder is compiled into one static archive; a program links the archives it needs and nothing else, so that one test
# can be built without the rest:  make unit-shm/ring  builds and runs tests/unit/shm/ring_test.c.

VERSION    := 0.1.0
SOVERSION  := 0

ifeq ($(origin CC),default)
CC         := gcc
endif
ifneq ($(filter-out address thread,$(SAN)),)
$(error SAN is "$(SAN)"; it may be address or thread)
endif
O          ?= build$(addprefix -,$(SAN))$(if $(filter 1,$(DEBUG)),-debug)$(if $(filter 0,$(COMPRESSION)),-no-compression)$(if $(filter 0,$(METRICS)),-no-metrics)
COMPRESSION ?= 1
METRICS    ?= 1
PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
SBINDIR    ?= $(PREFIX)/sbin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
SYSCONFDIR ?= /etc
INSTALL    ?= install
PKG_CONFIG ?= pkg-config
JOBS       ?= $(shell nproc 2>/dev/null || echo 2)
Q          := $(if $(V),,@)
say         = $(if $(V),,@printf '  %-8s %s\n' '$(1)' '$(2)')
# A sub-make that uses all cores unless the user chose a number.
submake     = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))

# ---- sources --------------------------------------------------------------------------------------------------------

c_of        = $(sort $(wildcard $(addsuffix /*.c,$(1))))

SHM_SRC            := $(call c_of,shm)
SHM_OS_SRC         := $(call c_of,shm/os)
BASE_SRC           := $(call c_of,agent/base)
STORE_SRC          := $(call c_of,agent/store)
STORE_EMBEDDED_SRC := $(call c_of,agent/store/embedded)
STORE_REDIS_SRC    := $(call c_of,agent/store/redis agent/store/redis/cluster)
STORE_BEHIND_SRC   := $(call c_of,agent/store/behind)
STORE_SPILL_SRC    := $(call c_of,agent/store/spill)
CACHE_SRC          := $(call c_of,agent/cache)
TENANT_SRC         := $(call c_of,agent/tenant)
STATE_SRC          := $(call c_of,agent/state)
COHERENCE_SRC      := $(call c_of,agent/coherence)
SERVE_SRC          := $(call c_of,agent/serve)
CONTROL_SRC        := $(call c_of,agent/control)
AGENT_SRC          := $(filter-out agent/main.c,$(call c_of,agent))
CLIENT_SRC         := $(call c_of,client-lib)
CTL_SRC            := $(call c_of,client-lib/ctl)
EXAMPLE_SRC        := $(call c_of,client-lib/examples)
BENCH_SRC          := $(call c_of,bench)
SUPPORT_SRC        := $(call c_of,tests/support)
TORTURE_SRC        := $(call c_of,tests/torture)
UNIT_SRC           := $(sort $(shell find tests/unit -name '*_test.c' 2>/dev/null))
E2E_SRC            := $(sort $(wildcard tests/e2e/*_test.c))

# ---- flags ----------------------------------------------------------------------------------------------------------

PACKAGES   := libuv hiredis libconfuse jansson libsystemd libsodium libxxhash $(if $(filter 0,$(COMPRESSION)),,liblz4 libzstd)
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES) 2>/dev/null)
AGENT_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES) 2>/dev/null) -lnng -llmdb -lacl
CTL_LIBS   := -ljansson
TEST_LIBS  := -lcmocka -lnng -lhiredis -ljansson

WERROR     ?= -Werror
WARNINGS   := -Wall -Wextra $(WERROR) -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wformat=2 \
	-Wundef -Wwrite-strings -Wold-style-definition
OPTIMISE   := $(if $(filter 1,$(DEBUG)),-O0,-O2) -g
# gcc's data-flow warnings are wrong about instrumented code; the plain build has them.
NO_FALSE_ALARMS := $(if $(findstring clang,$(CC)),,-Wno-maybe-uninitialized)
SANITIZE_address := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SANITIZE_thread  := -fsanitize=thread -fno-omit-frame-pointer
SANITIZE   := $(SANITIZE_$(SAN)) $(if $(SAN),$(NO_FALSE_ALARMS))
# FORTIFY needs an optimiser and gets in the sanitizers' way.
FORTIFY    := $(if $(SAN)$(filter 1,$(DEBUG)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)

ALL_CPPFLAGS = -D_GNU_SOURCE -DRIPTIDE_VERSION='"$(VERSION)"' $(FORTIFY) -I. -Iclient-lib/include $(PKG_CFLAGS) \
	$(if $(filter 0,$(COMPRESSION)),-DRIPTIDE_COMPRESSION=0) $(if $(filter 0,$(METRICS)),-DRIPTIDE_METRICS=0) $(CPPFLAGS)
ALL_CFLAGS   = -std=c17 $(OPTIMISE) $(WARNINGS) -fstack-protector-strong -fno-common -pthread $(SANITIZE) $(CFLAGS)
ALL_LDFLAGS  = -pthread -Wl,-z,relro,-z,now -Wl,--as-needed $(SANITIZE) $(LDFLAGS)
COMPILE      = $(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(EXTRA_CFLAGS) -MMD -MP -c -o $@ $<
LINK         = $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) \
	-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(1) $(LDLIBS)

# ---- what is built --------------------------------------------------------------------------------------------------

obj         = $(patsubst %.c,$(O)/obj/%.o,$(1))
pic         = $(patsubst %.c,$(O)/pic/%.o,$(1))

# Archives, lowest rank first. A folder without sources has no archive.
ARCHIVE_NAMES := $(strip $(foreach a,SHM SHM_OS BASE STORE STORE_EMBEDDED STORE_REDIS STORE_BEHIND STORE_SPILL CACHE TENANT STATE COHERENCE SERVE CONTROL AGENT,$(if $($(a)_SRC),$(a))))
lower        = $(shell echo '$(1)' | tr 'A-Z' 'a-z')
ARCHIVES    := $(foreach a,$(call lower,$(ARCHIVE_NAMES)),$(O)/$(a).a)
archives     = $(filter $(addprefix $(O)/,$(addsuffix .a,$(1))),$(ARCHIVES))
SUPPORT     := $(if $(SUPPORT_SRC),$(O)/support.a)

RIPTIDED    := $(if $(wildcard agent/main.c),$(O)/riptided)
RIPTIDECTL  := $(if $(CTL_SRC),$(O)/riptidectl)
LIBRARY     := $(if $(CLIENT_SRC),$(O)/libriptide.a)
SHARED      := $(if $(CLIENT_SRC),$(if $(wildcard client-lib/riptide.map),$(O)/libriptide.so.$(SOVERSION)))
PC          := $(if $(wildcard client-lib/riptide.pc.in),$(O)/riptide.pc)
EXAMPLES    := $(patsubst client-lib/examples/%.c,$(O)/examples/%,$(EXAMPLE_SRC))
BENCHES     := $(patsubst bench/%.c,$(O)/bench/%,$(BENCH_SRC))
UNIT_TESTS  := $(patsubst %.c,$(O)/%,$(UNIT_SRC))
E2E_TESTS   := $(patsubst %.c,$(O)/%,$(E2E_SRC))
TORTURE     := $(if $(TORTURE_SRC),$(O)/tests/torture/torture)
MUTANT_NUMBERS := 1 2 3 4 5
MUTANTS     := $(if $(TORTURE_SRC),$(foreach n,$(MUTANT_NUMBERS),$(O)/tests/torture/torture-mutant-$(n)))

.DEFAULT_GOAL := all
.PHONY: all archives programs tests mutants torture check test lint tidy format models bench benches demo install uninstall \
	clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules

all: archives programs
archives: $(ARCHIVES)
programs: $(RIPTIDED) $(RIPTIDECTL) $(LIBRARY) $(SHARED) $(PC) $(EXAMPLES)
benches: $(BENCHES)
torture: $(TORTURE)
mutants: $(TORTURE) $(MUTANTS)
tests: $(UNIT_TESTS) $(E2E_TESTS) $(TORTURE) $(if $(SAN),,$(MUTANTS))

# ---- compiling ------------------------------------------------------------------------------------------------------

# Objects depend on the flags, archives on the list of sources: each stamp changes only when its contents do.
stamp = $(shell mkdir -p $(O); printf '%s\n' '$(subst ','\'',$(2))' | cmp -s - $(O)/$(1) || \
	printf '%s\n' '$(subst ','\'',$(2))' >$(O)/$(1))
ifeq ($(filter clean help format uninstall,$(MAKECMDGOALS)),)
$(call stamp,.flags,$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS))
$(call stamp,.sources,$(foreach a,$(ARCHIVE_NAMES) CLIENT CTL SUPPORT TORTURE,$($(a)_SRC)))
endif
$(O)/.flags $(O)/.sources: ;

$(O)/obj/%.o: %.c $(O)/.flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE)

$(O)/pic/%.o: %.c $(O)/.flags
	$(call say,CC,$< (pic))
	@mkdir -p $(@D)
	$(Q)$(COMPILE)

# The library is small because applications map it hundreds of times: unused functions go, and what is no hot path is
# compiled for size, without the tables by which a stripped program's stack is unwound: debuggers take theirs from -g.
PIC := -fPIC -fvisibility=hidden -ffunction-sections -fdata-sections
$(O)/pic/%.o: EXTRA_CFLAGS = $(PIC)
# The shared layer imports nothing but mem* (make lint proves it), so no stack protector and no fortified copies.
PURE       := -fno-stack-protector -U_FORTIFY_SOURCE
$(call obj,$(SHM_SRC)): EXTRA_CFLAGS = $(PURE)
$(call pic,$(SHM_SRC)): EXTRA_CFLAGS = $(PURE) $(PIC)
COLD_SRC := $(patsubst %,client-lib/%.c,attach batch change control error fetch judge many metadata open request set sight stats tenant thread view) shm/channel.c
$(call pic,$(COLD_SRC)): EXTRA_CFLAGS = $(PIC) $(if $(filter 1,$(DEBUG)),,-Oz -fno-asynchronous-unwind-tables)

define archive-rule
$(O)/$(call lower,$(1)).a: $(call obj,$($(1)_SRC)) $(O)/.sources
	$$(call say,AR,$$@)
	$$(Q)rm -f $$@ && $$(AR) rcsD $$@ $$(filter %.o,$$^)
endef
$(foreach a,$(ARCHIVE_NAMES) $(if $(SUPPORT),SUPPORT),$(eval $(call archive-rule,$(a))))

# ---- agent, library, tools ------------------------------------------------------------------------------------------

$(O)/riptided: $(call obj,agent/main.c) $(ARCHIVES)
	$(call say,LD,$@)
	$(Q)$(call LINK,$(AGENT_LIBS))

# shm/os/acl.c is the agent's: it needs libacl, and the library links libc alone.
CLIENT_PIC := $(call pic,$(CLIENT_SRC) $(SHM_SRC) $(filter-out shm/os/acl.c,$(SHM_OS_SRC)))

$(O)/libriptide.a: $(CLIENT_PIC) $(O)/.sources
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcsD $@ $(filter %.o,$^)

$(O)/libriptide.so.$(SOVERSION): $(CLIENT_PIC) client-lib/riptide.map $(O)/.sources
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -shared -Wl,--gc-sections -Wl,-soname,$(@F) -Wl,--version-script=client-lib/riptide.map \
		$(if $(SAN),,-Wl,-z,defs) -o $@ $(filter %.o,$^)
	$(Q)ln -sf $(@F) $(O)/libriptide.so

$(O)/riptidectl: $(call obj,$(CTL_SRC)) $(LIBRARY) $(O)/.sources
	$(call say,LD,$@)
	$(Q)$(call LINK,$(CTL_LIBS))

$(O)/examples/%: $(O)/obj/client-lib/examples/%.o $(LIBRARY)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK)

$(O)/bench/%: $(O)/obj/bench/%.o $(LIBRARY) $(ARCHIVES)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(call LINK,$(AGENT_LIBS) -lm)

$(O)/riptide.pc: client-lib/riptide.pc.in $(O)/.flags Makefile
	$(call say,GEN,$@)
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' \
		-e 's|@VERSION@|$(VERSION)|g' $< >$@

# ---- tests ----------------------------------------------------------------------------------------------------------

# unit-rule: the folder below tests/unit, and the archives its tests link. The nearest folder's rule wins.
define unit-rule
$(O)/tests/unit/$(1)/%_test: $(O)/obj/tests/unit/$(1)/%_test.o $(SUPPORT) $(2)
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(call LINK,$$(TEST_LIBS) $(3))
endef
RANK_SHM     := shm shm_os
RANK_BASE    := base $(RANK_SHM)
RANK_STORE   := store store_embedded store_redis store_behind store_spill cache $(RANK_BASE)
RANK_TENANT  := tenant state coherence $(RANK_STORE)
RANK_SERVE   := serve control $(RANK_TENANT)
unit         = $(eval $(call unit-rule,$(1),$(call archives,$(2)),$$(AGENT_LIBS)))

$(eval $(call unit-rule,shm,$(call archives,$(RANK_SHM)),-lacl))
$(eval $(call unit-rule,client-lib,$(LIBRARY)))
$(call unit,agent/base,$(RANK_BASE))
$(call unit,agent/store,store $(RANK_BASE))
$(call unit,agent/store/embedded,store_embedded store $(RANK_BASE))
$(call unit,agent/store/redis,store_redis store $(RANK_BASE))
$(call unit,agent/store/behind,store_behind store_embedded store_redis store $(RANK_BASE))
$(call unit,agent/store/spill,store_spill store $(RANK_BASE))
$(call unit,agent/cache,$(RANK_STORE))
$(call unit,agent/tenant,$(RANK_TENANT))
$(call unit,agent/state,$(RANK_TENANT))
$(call unit,agent/coherence,$(RANK_TENANT))
$(call unit,agent/serve,$(RANK_SERVE))
$(call unit,agent/control,$(RANK_SERVE))
$(call unit,agent,agent $(RANK_SERVE))

$(O)/tests/e2e/%_test: $(O)/obj/tests/e2e/%_test.o $(SUPPORT) $(LIBRARY)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(call LINK,$(TEST_LIBS))

# The torture test (0), and the same test around a ring with one deliberate fault each (1-5), which it must find. All are
# built with RSHM_TORTURE, so that the ring calls the test between its steps.
torture-program = $(O)/tests/torture/torture$(if $(filter-out 0,$(1)),-mutant-$(1))

define torture-rule
$(O)/torture-$(1)/%.o: %.c $(O)/.flags
	$$(call say,CC,$$< (torture $(1)))
	@mkdir -p $$(@D)
	$$(Q)$$(COMPILE)
$(O)/torture-$(1)/%.o: EXTRA_CFLAGS = -DRSHM_TORTURE -DRSHM_MUTANT=$(1)
$(call torture-program,$(1)): $(patsubst %.c,$(O)/torture-$(1)/%.o,$(TORTURE_SRC) $(SHM_SRC)) $(O)/.sources
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(call LINK)
endef
$(foreach n,0 $(MUTANT_NUMBERS),$(eval $(call torture-rule,$(n))))

# One test, built and run:  make unit-shm/ring   make e2e-basic
define one-rule
.PHONY: $(1)
$(1): $(2)
	@tests/run.sh --one $(abspath $(O)) '$(SAN)' $$<
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call one-rule,unit-$(patsubst $(O)/tests/unit/%_test,%,$(t)),$(t))))
$(foreach t,$(E2E_TESTS),$(eval $(call one-rule,e2e-$(patsubst $(O)/tests/e2e/%_test,%,$(t)),$(t) programs)))

check:
	@packaging/deps.sh build test +lint
	@$(MAKE) --no-print-directory test

# Builds with all cores, then runs lint, tests and models one after the other; its last line is the count.
test:
	@$(submake) all tests || { tests/run.sh --build-failed; exit 1; }
	@MAKE='$(MAKE)' tests/run.sh $(abspath $(O)) '$(SAN)' $(UNIT_TESTS) $(E2E_TESTS) $(TORTURE) $(if $(SAN),,$(MUTANTS))

lint: $(ARCHIVES) $(SHARED)
	@tests/lint/run.sh $(O)

# Slower than lint, and not part of check: clang's analyser over every source.
tidy:
	clang-tidy --quiet $(SHM_SRC) $(SHM_OS_SRC) $(BASE_SRC) $(STORE_SRC) $(STORE_EMBEDDED_SRC) $(STORE_REDIS_SRC) $(STORE_BEHIND_SRC) $(STORE_SPILL_SRC) $(CACHE_SRC) \
		$(TENANT_SRC) $(STATE_SRC) $(COHERENCE_SRC) $(SERVE_SRC) $(CONTROL_SRC) $(AGENT_SRC) $(CLIENT_SRC) $(CTL_SRC) -- -std=c17 $(ALL_CPPFLAGS)

format:
	tests/lint/format.sh --write

models:
	tests/model/run.sh $(abspath $(O))/model

bench: all benches
	RIPTIDE_BUILD_DIR=$(abspath $(O)) bench/run.sh

demo:
	@packaging/deps.sh build
	@$(submake) all
	@RIPTIDE_BUILD_DIR=$(abspath $(O)) client-lib/examples/demo.sh

# ---- installing -----------------------------------------------------------------------------------------------------

D = $(DESTDIR)
install: all
	$(INSTALL) -d $(D)$(BINDIR) $(D)$(SBINDIR) $(D)$(LIBDIR)/pkgconfig $(D)$(INCLUDEDIR)/riptide $(D)$(SYSCONFDIR)/riptide
	$(INSTALL) -m 755 $(O)/riptided $(D)$(SBINDIR)/riptided
	$(INSTALL) -m 755 $(O)/riptidectl $(D)$(BINDIR)/riptidectl
	$(INSTALL) -m 644 $(O)/libriptide.a $(D)$(LIBDIR)/libriptide.a
	$(INSTALL) -m 755 $(O)/libriptide.so.$(SOVERSION) $(D)$(LIBDIR)/libriptide.so.$(SOVERSION)
	ln -sf libriptide.so.$(SOVERSION) $(D)$(LIBDIR)/libriptide.so
	$(INSTALL) -m 644 client-lib/include/riptide/riptide.h $(D)$(INCLUDEDIR)/riptide/riptide.h
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' \
		-e 's|@VERSION@|$(VERSION)|g' client-lib/riptide.pc.in >$(D)$(LIBDIR)/pkgconfig/riptide.pc
	chmod 644 $(D)$(LIBDIR)/pkgconfig/riptide.pc
	test -e $(D)$(SYSCONFDIR)/riptide/riptide.conf || \
		$(INSTALL) -m 644 conf/riptide.conf $(D)$(SYSCONFDIR)/riptide/riptide.conf

# The configuration stays: it may have been edited.
uninstall:
	rm -f $(D)$(SBINDIR)/riptided $(D)$(BINDIR)/riptidectl $(D)$(LIBDIR)/libriptide.a $(D)$(LIBDIR)/libriptide.so \
		$(D)$(LIBDIR)/libriptide.so.$(SOVERSION) $(D)$(LIBDIR)/pkgconfig/riptide.pc $(D)$(INCLUDEDIR)/riptide/riptide.h
	-rmdir $(D)$(INCLUDEDIR)/riptide 2>/dev/null

clean:
	rm -rf $(O)

help:
	@echo 'make            build the agent, the library and the tools into $(O)/'
	@echo 'make demo       install what is missing, build, and show several processes share one cache'
	@echo 'make check      install what is missing, build, lint, run every test and model; SAN=address|thread'
	@echo 'make test       the same without installing anything'
	@echo 'make unit-P     build and run one test, such as unit-shm/ring; e2e-P for tests/e2e'
	@echo 'make lint       layers, purity, exports, sizes, lengths, format, cppcheck      make tidy   clang-tidy'
	@echo 'make models     model-check the lock-free protocols with what is installed'
	@echo 'make mutants    the torture test around rings with deliberate faults'
	@echo 'make bench      measure, side by side with other stores'
	@echo 'make install    DESTDIR= PREFIX=/usr/local; make uninstall'
	@echo 'make format     apply .clang-format      make clean   remove $(O)/'
	@echo 'switches        O=dir CC=gcc|clang SAN=address|thread DEBUG=1 COMPRESSION=0 METRICS=0 V=1'

-include $(shell find $(O) -name '*.d' 2>/dev/null)
