/*
 * A file is opened by us, so that a folder, a FIFO or a gigabyte is refused before anybody's scanner meets it, then looked
 * over by config_scan(), then parsed by libconfuse piece by piece: the text up to an include, the included files, the text
 * behind it, each piece padded with empty lines so that its line numbers are those of the file. So an include takes effect
 * where it stands.
 *
 * To libconfuse every option is a string: what a value means is decided by whoever takes the statement, which keeps
 * libconfuse's numbers (010 is eight, nan is a number) out. Scalars are handed over from its value callback, at the line where
 * they stand; lists when their piece has been parsed, since only then libconfuse has applied = and +=.
 *
 * libconfuse's callbacks carry no context and its scanner is global, hence the one `file_run` and the lock around it.
 */
#include "agent/config_file.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/assert.h"
#include "agent/base/text.h"
#include "agent/config_scan.h"
#include "shm/msg.h"

#define FILE_SECTIONS_MAX 64
#define FILE_SECTION_OPTIONS_MAX 64
#define FILE_PATH_MAX 4096

struct file_identity {
	dev_t device;
	ino_t inode;
};

/* Where the last element of a list stood. */
struct file_list_line {
	const cfg_opt_t *option;
	unsigned line;
};

struct file_run {
	/* set once */
	const struct config_grammar_section *grammar;
	config_statement_fn *take;
	void *context;
	char *err;
	size_t err_size;
	cfg_opt_t sections[FILE_SECTIONS_MAX];
	cfg_opt_t options[FILE_SECTIONS_MAX][FILE_SECTION_OPTIONS_MAX];
	/* moves along */
	const char *file; /* that is being parsed */
	int status;       /* the first failure inside a callback of libconfuse */
	struct file_list_line *list_lines;
	size_t list_lines_count, list_lines_room;
	struct file_identity read[CONFIG_FILES_MAX];
	size_t read_count;
	struct file_identity open[CONFIG_INCLUDE_DEPTH_MAX];
	size_t depth;
};

static pthread_mutex_t file_lock = PTHREAD_MUTEX_INITIALIZER;
static struct file_run *file_run; /* under file_lock */

static int file_read_path(struct file_run *run, const char *path, const char *from, unsigned from_line,
			  bool may_be_absent);

/* ---- errors ---- */

/* The place of a failure is the include that named the file, or the file itself. */
#define file_fail(run, from, from_line, path, ...)                                    \
	config_fail_at((run)->err, (run)->err_size, (from) != NULL ? (from) : (path), \
		       (from) != NULL ? (from_line) : 1, __VA_ARGS__)

static void file_append_options(const struct config_grammar_section *section, struct text *text)
{
	for (const struct config_grammar_option *option = section->options; option->name != NULL; option++)
		text_append_format(text, "%s%s", option == section->options ? "" : ", ", option->name);
}

static const struct config_grammar_section *file_find_section(const struct file_run *run, const char *name)
{
	for (const struct config_grammar_section *section = run->grammar; section->name != NULL; section++) {
		if (strcmp(section->name, name) == 0)
			return section;
	}
	return NULL;
}

static int file_fail_unknown_option(struct file_run *run, cfg_t *cfg, const char *name)
{
	const struct config_grammar_section *section = file_find_section(run, cfg_name(cfg));
	char known_bytes[CONFIG_WORD_MAX];
	struct text known;

	/* What is no option's name may be a piece of a badly quoted secret. */
	if (strspn(name, "abcdefghijklmnopqrstuvwxyz_") != strlen(name) || strlen(name) > 40)
		name = "this text";
	if (section == NULL)
		return config_fail_at(run->err, run->err_size, run->file, (unsigned)cfg->line,
				      "%s: stands in no section; write section { option = value }", name);
	text_init(&known, known_bytes, sizeof(known_bytes));
	file_append_options(section, &known);
	return config_fail_at(run->err, run->err_size, run->file, (unsigned)cfg->line,
			      "%s.%s: no such option; this section has %s", section->name, name, known_bytes);
}

__attribute__((format(printf, 2, 0))) static void file_on_error(cfg_t *cfg, const char *format, va_list arguments)
{
	struct file_run *run = file_run;
	char message_bytes[256];
	struct text message;

	if (run->status != RSHM_OK)
		return;
	if (strncmp(format, "no such option", 14) == 0) {
		run->status = file_fail_unknown_option(run, cfg, va_arg(arguments, const char *));
		return;
	}
	text_init(&message, message_bytes, sizeof(message_bytes));
	if (strncmp(format, "unexpected token", 16) == 0)
		text_append_string(&message, "a value is missing, or something stands where it cannot; "
					     "write option = value");
	else
		text_append_formatv(&message, format, arguments);
	run->status = config_fail_at(run->err, run->err_size, run->file, (unsigned)cfg->line, "%s: %s",
				     strcmp(cfg_name(cfg), "root") == 0 ? "syntax" : cfg_name(cfg), message_bytes);
}

/* ---- statements ---- */

static int file_hand_over(struct file_run *run, const struct config_statement *statement)
{
	char what[1024] = "";
	int status = run->take(run->context, statement, what, sizeof(what));

	if (status == RSHM_OK)
		return RSHM_OK;
	if (statement->option == NULL)
		config_fail_at(run->err, run->err_size, statement->file, statement->line, "%s: %s",
			       statement->section, what);
	else
		config_fail_at(run->err, run->err_size, statement->file, statement->line, "%s.%s: %s",
			       statement->section, statement->option, what);
	return status;
}

static int file_note_list_line(struct file_run *run, const cfg_opt_t *option, unsigned line)
{
	size_t count = run->list_lines_count;

	if (count > 0 && run->list_lines[count - 1].option == option) {
		run->list_lines[count - 1].line = line;
		return RSHM_OK;
	}
	if (count == run->list_lines_room) {
		size_t room = count == 0 ? 16 : count * 2;
		struct file_list_line *more = realloc(run->list_lines, room * sizeof(*more));

		if (more == NULL)
			return RSHM_E_NOMEM;
		run->list_lines = more;
		run->list_lines_room = room;
	}
	run->list_lines[run->list_lines_count++] = (struct file_list_line){option, line};
	return RSHM_OK;
}

static int file_on_value(cfg_t *cfg, cfg_opt_t *option, const char *value, void *result)
{
	struct file_run *run = file_run;

	if ((option->flags & CFGF_LIST) != 0) {
		run->status = file_note_list_line(run, option, (unsigned)cfg->line);
	} else {
		struct config_statement statement = {.file = run->file,
						     .line = (unsigned)cfg->line,
						     .section = cfg_name(cfg),
						     .title = cfg_title(cfg),
						     .option = cfg_opt_name(option),
						     .values = &value,
						     .values_count = 1};

		run->status = file_hand_over(run, &statement);
	}
	/* libconfuse copies what is left here, and only reads it. */
	*(const char **)result = value;
	return run->status == RSHM_OK ? 0 : -1;
}

static int file_hand_over_list(struct file_run *run, cfg_t *section, cfg_opt_t *option)
{
	unsigned count = cfg_opt_size(option), line = 0;
	const char **values;
	int status;

	if (count == 0)
		return RSHM_OK;
	values = calloc(count, sizeof(*values));
	if (values == NULL)
		return RSHM_E_NOMEM;
	for (unsigned i = 0; i < count; i++)
		values[i] = cfg_opt_getnstr(option, i);
	for (size_t i = run->list_lines_count; i > 0 && line == 0; i--) {
		if (run->list_lines[i - 1].option == option)
			line = run->list_lines[i - 1].line;
	}
	status = file_hand_over(run, &(struct config_statement){.file = run->file,
								.line = line,
								.section = cfg_name(section),
								.title = cfg_title(section),
								.option = cfg_opt_name(option),
								.values = values,
								.values_count = count});
	free(values);
	return status;
}

static int file_hand_over_lists(struct file_run *run, cfg_t *root)
{
	int status = RSHM_OK;

	for (const struct config_grammar_section *section = run->grammar; section->name != NULL; section++) {
		for (unsigned i = 0; i < cfg_size(root, section->name); i++) {
			cfg_t *one = cfg_getnsec(root, section->name, i);

			for (const struct config_grammar_option *o = section->options; o->name != NULL; o++) {
				if (o->list && status == RSHM_OK)
					status = file_hand_over_list(run, one, cfg_getopt(one, o->name));
			}
		}
	}
	return status;
}

/* Checks the sections that open in the text and announces the titled ones. */
static int file_hand_over_sections(struct file_run *run, const struct config_mark *marks, size_t count)
{
	int status = RSHM_OK;

	for (size_t i = 0; i < count && status == RSHM_OK; i++) {
		const struct config_grammar_section *section = file_find_section(run, marks[i].name);
		struct config_statement statement = {
			.file = run->file, .line = marks[i].line, .section = marks[i].name, .title = marks[i].title};

		if (section == NULL)
			status = config_fail_at(run->err, run->err_size, run->file, marks[i].line,
						"%.40s: no such section", marks[i].name);
		else if (section->titled && marks[i].title == NULL)
			status = config_fail_at(run->err, run->err_size, run->file, marks[i].line,
						"%s: has no name; write %s \"name\" { ... }", section->name,
						section->name);
		else if (!section->titled && marks[i].title != NULL)
			status = config_fail_at(run->err, run->err_size, run->file, marks[i].line,
						"%s: takes no name; write %s { ... }", section->name, section->name);
		else if (section->titled)
			status = file_hand_over(run, &statement);
	}
	return status;
}

/* ---- libconfuse ---- */

static void file_build_grammar(struct file_run *run)
{
	size_t count = 0;

	for (; run->grammar[count].name != NULL; count++) {
		const struct config_grammar_section *section = &run->grammar[count];
		cfg_flag_t flags = section->titled ? CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES : CFGF_NONE;
		size_t options = 0;

		must(count + 1 < FILE_SECTIONS_MAX);
		for (; section->options[options].name != NULL; options++) {
			const struct config_grammar_option *option = &section->options[options];
			const cfg_opt_t list = CFG_STR_LIST_CB(option->name, NULL, CFGF_NODEFAULT, file_on_value);
			const cfg_opt_t scalar = CFG_STR_CB(option->name, NULL, CFGF_NODEFAULT, file_on_value);

			must(options + 1 < FILE_SECTION_OPTIONS_MAX);
			run->options[count][options] = option->list ? list : scalar;
		}
		run->options[count][options] = (cfg_opt_t)CFG_END();
		run->sections[count] = (cfg_opt_t)CFG_SEC(section->name, run->options[count], flags);
	}
	run->sections[count] = (cfg_opt_t)CFG_END();
}

/* Parses `text`, which already stands at its right line. */
static int file_parse(struct file_run *run, const char *text)
{
	cfg_t *root = cfg_init(run->sections, CFGF_NONE);
	int status;

	if (root == NULL)
		return RSHM_E_NOMEM;
	cfg_set_error_function(root, file_on_error);
	run->status = RSHM_OK;
	run->list_lines_count = 0;
	if (cfg_parse_buf(root, text) != CFG_SUCCESS && run->status == RSHM_OK)
		run->status = config_fail_at(run->err, run->err_size, run->file, (unsigned)root->line,
					     "syntax: this cannot be read; write section { option = value }");
	status = run->status;
	if (status == RSHM_OK)
		status = file_hand_over_lists(run, root);
	cfg_free(root);
	return status;
}

/* Parses [begin, end) of `text` behind as many empty lines as stand before it. */
static int file_parse_piece(struct file_run *run, const char *text, size_t begin, size_t end)
{
	size_t lines = 0;
	char *piece;
	int status;

	for (size_t i = 0; i < begin; i++)
		lines += text[i] == '\n';
	piece = malloc(lines + (end - begin) + 2);
	if (piece == NULL)
		return RSHM_E_NOMEM;
	memset(piece, '\n', lines);
	memcpy(piece + lines, text + begin, end - begin);
	memcpy(piece + lines + (end - begin), "\n", 2);
	status = file_parse(run, piece);
	free(piece);
	return status;
}

/* ---- includes ---- */

/* Reads the files that a pattern names. Without wildcards there must be one. */
static int file_read_pattern(struct file_run *run, const char *pattern, const char *from, unsigned line)
{
	bool wild = strpbrk(pattern, "*?[") != NULL;
	int status = RSHM_OK;
	glob_t found;

	switch (glob(pattern, 0, NULL, &found)) {
	case 0:
		break;
	case GLOB_NOMATCH:
		if (wild)
			return RSHM_OK;
		return file_fail(run, from, line, pattern, "include: \"%s\" is not there; correct the path", pattern);
	default:
		return file_fail(run, from, line, pattern, "include: \"%s\" cannot be searched for", pattern);
	}
	for (size_t i = 0; i < found.gl_pathc && status == RSHM_OK; i++)
		status = file_read_path(run, found.gl_pathv[i], from, line, false);
	globfree(&found);
	return status;
}

/* Puts the folder of `file` before `pattern`; wildcards in the folder's own name mean themselves. */
static bool file_join(const char *file, const char *pattern, struct text *path)
{
	const char *slash = strrchr(file, '/');

	if (pattern[0] != '/' && slash != NULL) {
		for (const char *p = file; p <= slash; p++) {
			if (strchr("*?[\\", *p) != NULL)
				text_append_string(path, "\\");
			text_append(path, p, 1);
		}
	}
	text_append_string(path, pattern);
	return !path->cut;
}

static int file_read_include(struct file_run *run, const char *file, unsigned line, const char *pattern)
{
	char bytes[FILE_PATH_MAX];
	struct text path;

	text_init(&path, bytes, sizeof(bytes));
	if (!file_join(file, pattern, &path))
		return config_fail_at(run->err, run->err_size, file, line, "include: the path is too long");
	return file_read_pattern(run, bytes, file, line);
}

/* Parses a scanned text, its includes where they stand. */
static int file_parse_scanned(struct file_run *run, const char *file, const char *text, size_t length,
			      const struct config_scan *scan)
{
	size_t from = 0, first = 0;
	int status = RSHM_OK;

	for (size_t i = 0; i <= scan->marks_count && status == RSHM_OK; i++) {
		const struct config_mark *mark = i < scan->marks_count ? &scan->marks[i] : NULL;

		if (mark != NULL && mark->kind != CONFIG_MARK_INCLUDE)
			continue;
		run->file = file;
		status = file_hand_over_sections(run, scan->marks + first, i - first);
		if (status == RSHM_OK)
			status = file_parse_piece(run, text, from, mark != NULL ? mark->begin : length);
		if (status == RSHM_OK && mark != NULL) {
			status = file_read_include(run, file, mark->line, mark->name);
			from = mark->end;
			first = i + 1;
		}
	}
	return status;
}

/* ---- files ---- */

/* Reads an open file whole. *ret_text is the caller's to free. */
static int file_load(struct file_run *run, int descriptor, const char *path, char **ret_text, size_t *ret_length)
{
	char *text = malloc(CONFIG_FILE_MAX + 2);
	size_t length = 0;
	ssize_t got;

	if (text == NULL)
		return RSHM_E_NOMEM;
	while (length <= CONFIG_FILE_MAX) {
		got = read(descriptor, text + length, CONFIG_FILE_MAX + 1 - length);
		if (got == 0)
			break;
		if (got < 0 && errno != EINTR) {
			int error = errno;

			free(text);
			return config_fail_at(run->err, run->err_size, path, 1, "cannot be read: %s",
					      strerror(error));
		}
		length += got > 0 ? (size_t)got : 0;
	}
	if (length > CONFIG_FILE_MAX) {
		free(text);
		return config_fail_at(run->err, run->err_size, path, 1,
				      "the file is larger than 1 MiB; split it into conf.d");
	}
	text[length] = '\0';
	*ret_text = text;
	*ret_length = length;
	return RSHM_OK;
}

static bool file_is_among(const struct file_identity *files, size_t count, const struct stat *status)
{
	for (size_t i = 0; i < count; i++) {
		if (files[i].device == status->st_dev && files[i].inode == status->st_ino)
			return true;
	}
	return false;
}

/* Counts the file in, if it is one and may be read now. */
static int file_enter(struct file_run *run, int descriptor, const char *path, const char *from, unsigned from_line)
{
	struct file_identity identity;
	struct stat status;

	if (fstat(descriptor, &status) != 0)
		return file_fail(run, from, from_line, path, "\"%s\" cannot be looked at: %s", path, strerror(errno));
	if (!S_ISREG(status.st_mode))
		return file_fail(run, from, from_line, path, "\"%s\" is %s, not a file; name a file", path,
				 S_ISDIR(status.st_mode) ? "a folder" : "something else");
	if (file_is_among(run->open, run->depth, &status))
		return file_fail(run, from, from_line, path,
				 "include: \"%s\" includes itself; remove one of the includes", path);
	if (run->depth == CONFIG_INCLUDE_DEPTH_MAX)
		return file_fail(run, from, from_line, path, "include: deeper than %d files; put them side by side",
				 CONFIG_INCLUDE_DEPTH_MAX);
	if (run->read_count == CONFIG_FILES_MAX)
		return file_fail(run, from, from_line, path, "include: more than %d files", CONFIG_FILES_MAX);
	identity = (struct file_identity){status.st_dev, status.st_ino};
	run->open[run->depth++] = identity;
	run->read[run->read_count++] = identity;
	return RSHM_OK;
}

static int file_read_open(struct file_run *run, int descriptor, const char *path)
{
	struct config_scan scan;
	size_t length = 0;
	char *text = NULL;
	int status = file_load(run, descriptor, path, &text, &length);

	if (status != RSHM_OK)
		return status;
	status = config_scan(path, text, length, &scan, run->err, run->err_size);
	if (status == RSHM_OK) {
		status = file_parse_scanned(run, path, text, length, &scan);
		config_scan_fini(&scan);
	}
	free(text);
	return status;
}

static int file_read_path(struct file_run *run, const char *path, const char *from, unsigned from_line,
			  bool may_be_absent)
{
	/* Without O_NONBLOCK a FIFO would keep us here before we know that it is one. */
	int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int status;

	if (descriptor < 0) {
		if (errno == ENOENT && may_be_absent)
			return RSHM_OK;
		return file_fail(run, from, from_line, path, "\"%s\" cannot be opened: %s", path, strerror(errno));
	}
	status = file_enter(run, descriptor, path, from, from_line);
	if (status == RSHM_OK) {
		status = file_read_open(run, descriptor, path);
		run->depth--;
	}
	close(descriptor);
	return status;
}

/* conf.d beside the main file; what that file has included itself is not read again. */
static int file_read_conf_d(struct file_run *run, const char *path)
{
	char bytes[FILE_PATH_MAX];
	int status = RSHM_OK;
	struct text pattern;
	struct stat info;
	glob_t found;

	text_init(&pattern, bytes, sizeof(bytes));
	if (!file_join(path, "conf.d/*.conf", &pattern))
		return config_fail_at(run->err, run->err_size, path, 1, "the path is too long");
	if (glob(bytes, 0, NULL, &found) != 0)
		return RSHM_OK;
	for (size_t i = 0; i < found.gl_pathc && status == RSHM_OK; i++) {
		if (stat(found.gl_pathv[i], &info) != 0 || !file_is_among(run->read, run->read_count, &info))
			status = file_read_path(run, found.gl_pathv[i], NULL, 0, false);
	}
	globfree(&found);
	return status;
}

int config_file_read(const struct config_grammar_section *grammar, const struct config_file_source *source,
		     config_statement_fn *take, void *context, char *err, size_t err_size)
{
	struct file_run *run = calloc(1, sizeof(*run));
	int status;

	if (run == NULL)
		return RSHM_E_NOMEM;
	run->grammar = grammar;
	run->take = take;
	run->context = context;
	run->err = err;
	run->err_size = err_size;
	file_build_grammar(run);

	must(pthread_mutex_lock(&file_lock) == 0);
	file_run = run;
	status = file_read_path(run, source->path, NULL, 0, source->may_be_absent);
	if (status == RSHM_OK && source->with_conf_d)
		status = file_read_conf_d(run, source->path);
	file_run = NULL;
	must(pthread_mutex_unlock(&file_lock) == 0);

	free(run->list_lines);
	free(run);
	return status;
}
