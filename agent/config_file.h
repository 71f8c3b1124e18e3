/*
 * config_file.h - reads configuration files: opening, checking, includes, and libconfuse for the grammar.
 *
 * Knows sections and options by the grammar it is given, and nothing of what they mean.
 */
#ifndef RIPTIDE_CONFIG_FILE_H
#define RIPTIDE_CONFIG_FILE_H

#include <stdbool.h>
#include <stddef.h>

#define CONFIG_FILE_MAX (1024 * 1024) /* bytes of one file */
#define CONFIG_INCLUDE_DEPTH_MAX 8
#define CONFIG_FILES_MAX 256 /* files of one load */

/* What may stand in a file; ended by a NULL name each. */
struct config_grammar_option {
	const char *name;
	bool list;
};
struct config_grammar_section {
	const char *name;
	bool titled; /* may occur several times, under different titles */
	const struct config_grammar_option *options;
};

/* Lent for the call. */
struct config_statement {
	const char *file;
	unsigned line;
	const char *section, *title; /* title: NULL in an untitled section */
	const char *option;          /* NULL: a titled section opens */
	const char *const *values;   /* one, or those of a list */
	size_t values_count;
};

/*
 * Takes a statement. What is wrong with it goes to `err` as `what is wrong; what is allowed`; the place is put before it by
 * the reader. Returns 0 or a negative code, which ends the reading.
 */
typedef int config_statement_fn(void *context, const struct config_statement *statement, char *err, size_t err_size);

struct config_file_source {
	const char *path;
	bool may_be_absent;
	bool with_conf_d; /* afterwards conf.d / *.conf beside it, in the order of their names */
};

/*
 * Reads a file and what it includes (relative to the including file, patterns in the order of names), and hands over every
 * statement in order; later ones are meant to replace earlier ones. Blocks on the disk; one thread at a time (libconfuse has
 * one state per process). RSHM_E_INVALID with `err` = "file:line: ...", RSHM_E_NOMEM, or what `take` returned.
 */
int config_file_read(const struct config_grammar_section *grammar, const struct config_file_source *source,
		     config_statement_fn *take, void *context, char *err, size_t err_size);

#endif
