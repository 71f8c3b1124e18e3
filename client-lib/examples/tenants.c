/*
 * tenants.c - a tenant from its making to its end: what it may do, how much of it, and who says no.
 *
 *	cc tenants.c $(pkg-config --cflags --libs riptide) -o tenants
 *	sudo -u riptide ./tenants
 *
 * Making tenants is for root, the agent's own user and the group tenancy.administrators; the rest is what the processes of the
 * tenant do.
 */
#include <riptide/riptide.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEBIBYTE 1048576u

/* Prints what went wrong and ends. */
static void need(riptide *handle, int status, const char *what)
{
	char why[320] = "";

	if (status >= 0)
		return;
	(void)riptide_last_error(handle, why, sizeof(why));
	fprintf(stderr, "tenants: %s: %s (%s)\n", what, why[0] ? why : riptide_strerror(status),
		riptide_error_category(status));
	exit(1);
}

static void create(riptide *admin)
{
	static const char document[] =
		"{\"id\": \"acme\", \"name\": \"Acme Corporation\", \"plan\": \"professional\", \"isolation\": \"strong\","
		" \"owner\": {\"id\": \"owner_123\", \"name\": \"Acme Corporation\", \"email\": \"admin@acme.com\"},"
		" \"quotas\": {\"memory_bytes\": 104857600, \"operations_per_minute\": 1000, \"crawls\": 3},"
		" \"policies\": ["
		"  {\"resource\": \"cache:*\", \"actions\": [\"read\", \"write\"], \"effect\": \"allow\"},"
		"  {\"name\": \"no secrets\", \"resource\": \"cache:secret:*\", \"actions\": [\"*\"], \"effect\": \"deny\"}]}";

	need(admin, riptide_tenant_create(admin, document, NULL), "creating the tenant");
	printf("tenant acme is made\n");
}

static void ask_for_access(riptide *tenant, const char *resource, const char *action)
{
	struct riptide_access access;

	need(tenant, riptide_validate_access(tenant, resource, strlen(resource), action, &access),
	     "asking for access");
	printf("%-6s %-16s %-3s %s\n", action, resource, access.allowed ? "yes" : "no", access.rule);
}

static void use_the_cache(riptide *tenant)
{
	char why[320], value[16];
	size_t length;

	need(tenant, riptide_set(tenant, "cache:page", 10, "hello", 5, NULL, NULL), "setting cache:page");
	need(tenant, riptide_get_into(tenant, "cache:page", 10, value, sizeof(value), &length, NULL), "getting it");
	printf("cache:page is \"%.*s\"\n", (int)length, value);
	if (riptide_set(tenant, "cache:secret:key", 16, "x", 1, NULL, NULL) == RIPTIDE_EDENIED) {
		(void)riptide_last_error(tenant, why, sizeof(why));
		printf("%s\n", why);
	}
}

static void use_quotas(riptide *tenant)
{
	struct riptide_quota quota;
	struct riptide_rate rate;

	need(tenant, riptide_check_quota(tenant, "memory_bytes", MEBIBYTE, RIPTIDE_QUOTA_ASK, &quota),
	     "memory_bytes");
	printf("1 MiB more of memory: %s, of %llu bytes\n", quota.allowed ? "yes" : "no",
	       (unsigned long long)quota.limit);
	/* A quota of the application's own: what it consumes, all hosts see. */
	for (int i = 0; i < 4; i++) {
		need(tenant, riptide_check_quota(tenant, "crawls", 1, RIPTIDE_QUOTA_CONSUME, &quota), "crawls");
		printf("crawl %d: %s, %llu of %llu were used\n", i + 1, quota.allowed ? "yes" : "no",
		       (unsigned long long)quota.use, (unsigned long long)quota.limit);
	}
	need(tenant, riptide_check_quota(tenant, "crawls", 1, RIPTIDE_QUOTA_RELEASE, NULL), "crawls");
	need(tenant, riptide_rate(tenant, "operations_per_minute", &rate), "operations_per_minute");
	printf("operations a minute: %llu at most, limited now: %s\n", (unsigned long long)rate.limit,
	       rate.limited ? "yes" : "no");
}

int main(void)
{
	struct riptide_options options = {.size = sizeof(options), .tenant = "acme"};
	riptide *admin = NULL, *tenant = NULL;
	char *removed;
	int status;

	status = riptide_open(NULL, &admin);
	need(admin, status, "attaching");
	create(admin);
	status = riptide_open(&options, &tenant);
	need(tenant, status, "attaching to acme");
	ask_for_access(tenant, "cache:page", "read");
	ask_for_access(tenant, "cache:secret:key", "read");
	ask_for_access(tenant, "other", "write");
	use_the_cache(tenant);
	use_quotas(tenant);
	need(admin, riptide_tenant_suspend(admin, "acme", "the invoice is open"), "suspending");
	printf("suspended, reading: %s\n",
	       riptide_get_into(tenant, "cache:page", 10, NULL, 0, &(size_t){0}, NULL) == RIPTIDE_EDENIED ? "denied"
													  : "?");
	riptide_close(&tenant);
	need(admin, riptide_tenant_delete(admin, "acme", &removed), "deleting");
	printf("deleted: %s\n", removed);
	free(removed);
	riptide_close(&admin);
	return 0;
}
