/*
 * compression.c - what the agent's own compression leaves of a value and what it takes: envelope_encode() and the way back.
 *
 * No agent runs. The text is what a Debian machine has: licences, documentation, C headers, and this repository's sources
 * if the program is started at its root. Every other file is for training, the rest for measuring, so that no dictionary has
 * seen the files that it is measured on; licence heads and the like do stand in both, as they would. From pieces at random
 * places four kinds of documents are made (JSON lists, HTML pages, sessions with random tokens, plain text), cut to sizes
 * within 10 % of the nominal one. Each kind has a dictionary, as each content type has in the agent, trained from as many
 * bytes as the agent's sampler keeps and then sent through its stored form, which is the one that is read with.
 *
 * One duration is one entry: encoding with its allocation and checksum; opening, which checks, and decompressing. The ways
 * take turns round by round over the same entries. Every entry of every round is compared with what it was made from; one
 * difference ends the program with status 1, as does random data that is not stored as it is.
 *
 * lz4 and zstd have threshold 0, so that what is plain was left so by the 10 % rule; auto has the agent's thresholds.
 */
#include <fts.h>
#include <stdarg.h>

#include "agent/store/compress.h"
#include "agent/store/dictionary.h"
#include "agent/store/envelope.h"
#include "bench/bench_row.h"
#include "bench/bench_world.h"

#define FILE_BYTES (32u << 10)    /* at most taken of one file */
#define FOLDER_BYTES (3u << 20)   /* at most taken of one folder */
#define FOLDER_FILES 20000u       /* at most looked at in one folder */
#define HALF_LEAST (256u << 10)   /* of text, below which nothing is measured */
#define TRAINING_BYTES (2u << 20) /* per kind */
#define ROUNDS_MAX 32u
#define PROGRAM_NS 24000000000u /* when it is past, what is being measured is cut short */

enum kind { KIND_JSON, KIND_HTML, KIND_SESSION, KIND_TEXT, KINDS };

static const char *const kind_names[KINDS] = {"json", "html", "session", "text"};
static const char *const kind_types[KINDS] = {"application/json", "text/html", "application/x-session", "text/plain"};

/* Bytes that grow. */
struct text {
	char *bytes;
	size_t length, capacity;
};

/* Entries one after the other. */
struct records {
	struct text text;
	size_t *ends;
	unsigned char *kinds;
	size_t count;
};

struct size {
	const char *name;
	size_t bytes, count;
};

static const struct size sizes[] = {
	{"200 B", 200, 4000},  {"1 KB", 1024, 2000},    {"4 KB", 4096, 1000},
	{"10 KB", 10240, 500}, {"100 KB", 102400, 160},
};

#define SIZES (sizeof(sizes) / sizeof(*sizes))

struct way {
	const char *name;
	struct envelope_compression compression;
	bool has_dictionary;
};

static const struct way ways[] = {
	{"none", {.choice = ENVELOPE_CHOOSE_NONE}, false},
	{"lz4", {.choice = ENVELOPE_CHOOSE_LZ4}, false},
	{"zstd", {.choice = ENVELOPE_CHOOSE_ZSTD}, false},
	{"zstd + dictionary", {.choice = ENVELOPE_CHOOSE_ZSTD}, true},
	{"auto", {.choice = ENVELOPE_CHOOSE_AUTO, .threshold = ENVELOPE_THRESHOLD_DEFAULT}, false},
	{"auto + dictionary", {.choice = ENVELOPE_CHOOSE_AUTO, .threshold = ENVELOPE_THRESHOLD_DEFAULT}, true},
};

#define WAYS (sizeof(ways) / sizeof(*ways))

/* What one way made of one set of entries. Counts and bytes are those of the first round. */
struct tally {
	size_t entries, plain_bytes, stored_bytes;
	size_t stored_as[ENVELOPE_ZSTD + 1];
	size_t with_dictionary;
	size_t small, refused; /* plain: not above the threshold; because of the 10 % rule */
	size_t kind_plain[KINDS], kind_stored[KINDS];
	double *encode_ns, *decode_ns; /* of every entry of every round */
	size_t durations;
	double encode_rate[ROUNDS_MAX], decode_rate[ROUNDS_MAX]; /* bytes per second */
	size_t rounds;
};

/* Of each kind: the one written with, and what became of it on its way through the store. */
static struct dictionary *writing[KINDS], *reading[KINDS];
static double left_percent[SIZES][KINDS][WAYS];
static uint64_t deadline_ns;

/* ---- bytes that grow ---------------------------------------------------------------------------------------- */

static void text_reserve(struct text *text, size_t more)
{
	size_t capacity = text->capacity ? text->capacity : 1u << 16;

	while (capacity - text->length < more)
		capacity *= 2;
	if (capacity == text->capacity)
		return;
	text->bytes = realloc(text->bytes, capacity);
	bench_need(text->bytes != NULL, "memory");
	text->capacity = capacity;
}

static void text_add(struct text *text, const char *bytes, size_t length)
{
	text_reserve(text, length);
	memcpy(text->bytes + text->length, bytes, length);
	text->length += length;
}

static void text_free(struct text *text)
{
	free(text->bytes);
	*text = (struct text){0};
}

static __attribute__((format(printf, 2, 3))) void text_print(struct text *text, const char *format, ...)
{
	char line[1024];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	bench_need(length >= 0 && (size_t)length < sizeof(line), "a piece of a document");
	text_add(text, line, (size_t)length);
}

/* ---- text of this machine ----------------------------------------------------------------------------------- */

/* Reads up to FILE_BYTES of a file; false if it is no text. */
static bool read_file(const char *path, struct text *half)
{
	int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t length;

	if (file < 0)
		return false;
	text_reserve(half, FILE_BYTES);
	length = read(file, half->bytes + half->length, FILE_BYTES);
	close(file);
	if (length < 64 || memchr(half->bytes + half->length, '\0', (size_t)length) != NULL)
		return false;
	half->length += (size_t)length;
	return true;
}

static int compare_names(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Every other file for each half, in the order of names. What cannot be read is left out. */
static void read_folder(const char *path, struct text halves[2])
{
	char *const paths[] = {(char *)(uintptr_t)path, NULL};
	FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, compare_names);
	size_t before = halves[0].length + halves[1].length, taken = 0, seen = 0;
	FTSENT *entry;

	bench_need(tree != NULL, path);
	while (halves[0].length + halves[1].length - before < FOLDER_BYTES && seen < FOLDER_FILES &&
	       (entry = fts_read(tree)) != NULL) {
		/* Notes on copyright are copies of each other all over the machine. */
		if (entry->fts_info == FTS_F && seen++ < FOLDER_FILES && strcmp(entry->fts_name, "copyright") != 0)
			taken += read_file(entry->fts_accpath, &halves[taken % 2]);
	}
	fts_close(tree);
	printf("    %-30s %5zu files %8.2f MiB\n", path, taken,
	       (double)(halves[0].length + halves[1].length - before) / 1048576);
}

static void read_corpus(struct text halves[2])
{
	static const char *const folders[] = {
		"agent",          "client-lib",  "shm", "tests", "/usr/share/common-licenses",
		"/usr/share/doc", "/usr/include"};

	printf("Text of this machine, every other file for training\n");
	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++)
		read_folder(folders[i], halves);
	errno = 0;
	bench_need(halves[0].length >= HALF_LEAST && halves[1].length >= HALF_LEAST,
		   "there is too little text; start it in the repository");
}

/* ---- documents ---------------------------------------------------------------------------------------------- */

static unsigned int below(uint64_t *random, unsigned int limit)
{
	return (unsigned int)((bench_random(random) >> 11) % limit);
}

/* A word of the text, in `word`. */
static const char *pick_word(const struct text *from, uint64_t *random, char word[13])
{
	for (unsigned int tries = 0; tries < 64; tries++) {
		const char *at = from->bytes + bench_random(random) % (from->length - 64);
		size_t length = 0;

		for (unsigned int i = 0; i < 31 && *at != ' ' && *at != '\n'; i++)
			at++;
		while (length < 12 && at[length + 1] >= 'a' && at[length + 1] <= 'z')
			length++;
		if (length < 3)
			continue;
		memcpy(word, at + 1, length);
		word[length] = '\0';
		return word;
	}
	return strcpy(word, "word");
}

static void add_escaped(struct text *to, char c, enum kind kind)
{
	if (kind == KIND_HTML && (c == '<' || c == '>' || c == '&'))
		text_print(to, "%s", c == '<' ? "&lt;" : c == '>' ? "&gt;" : "&amp;");
	else if (kind != KIND_HTML && kind != KIND_TEXT && (c == '"' || c == '\\'))
		text_print(to, "\\%c", c);
	else if (kind != KIND_HTML && kind != KIND_TEXT && (c == '\n' || c == '\t'))
		text_print(to, "\\%c", c == '\n' ? 'n' : 't');
	else
		text_add(to, &c, 1);
}

/* A passage of about that length from a random place, written as the kind wants it. */
static void add_passage(struct text *to, const struct text *from, uint64_t *random, enum kind kind, size_t length)
{
	size_t at = bench_random(random) % (from->length - length - 64);

	for (unsigned int i = 0; i < 32 && from->bytes[at] != ' ' && from->bytes[at] != '\n'; i++)
		at++;
	for (size_t i = 1; i <= length; i++)
		add_escaped(to, from->bytes[at + i], kind);
}

static void add_json_item(struct text *to, const struct text *from, uint64_t *random)
{
	static const char *const states[] = {"available", "sold_out", "announced", "discontinued"};
	char a[13], b[13];

	text_print(
		to,
		"{\"id\":%u,\"name\":\"%s %s\",\"state\":\"%s\",\"price\":{\"amount\":%u.%02u,\"currency\":\"EUR\"},",
		below(random, 1000000), pick_word(from, random, a), pick_word(from, random, b),
		states[below(random, 4)], below(random, 500), below(random, 100));
	text_print(to,
		   "\"updated_at\":\"2024-%02u-%02uT%02u:%02u:%02uZ\",\"tags\":[\"%s\",\"%s\"],\"description\":\"",
		   1 + below(random, 12), 1 + below(random, 28), below(random, 24), below(random, 60),
		   below(random, 60), pick_word(from, random, a), pick_word(from, random, b));
	add_passage(to, from, random, KIND_JSON, 60 + below(random, 180));
	text_print(to, "\"},");
}

static void add_html_part(struct text *to, const struct text *from, uint64_t *random)
{
	char a[13], b[13];

	text_print(to, "<article class=\"card card--%s\">\n  <h3><a href=\"/articles/%u/%s-%s\">",
		   below(random, 2) ? "wide" : "small", below(random, 100000), pick_word(from, random, a),
		   pick_word(from, random, b));
	text_print(to, "%s %s</a></h3>\n  <p>", a, b);
	add_passage(to, from, random, KIND_HTML, 80 + below(random, 400));
	text_print(
		to,
		"</p>\n  <span class=\"meta\"><time datetime=\"2024-%02u-%02u\"></time> %u comments</span>\n</article>\n",
		1 + below(random, 12), 1 + below(random, 28), below(random, 90));
}

static void add_session_step(struct text *to, const struct text *from, uint64_t *random)
{
	char a[13], b[13];

	text_print(to, "{\"at\":%u,\"path\":\"/%s/%s/%u\",\"status\":%u,\"ms\":%u,\"referrer\":\"/%s\"},",
		   1715000000 + below(random, 1000000), pick_word(from, random, a), pick_word(from, random, b),
		   below(random, 10000), below(random, 20) ? 200u : 404u, below(random, 900), a);
	if (below(random, 4) == 0) {
		text_print(to, "{\"flash\":\"");
		add_passage(to, from, random, KIND_SESSION, 40 + below(random, 60));
		text_print(to, "\"},");
	}
}

static void add_head(struct text *to, const struct text *from, uint64_t *random, enum kind kind, size_t length)
{
	char a[13], b[13];

	if (kind == KIND_JSON && length > 600)
		text_print(
			to,
			"{\"page\":%u,\"per_page\":50,\"total\":%u,\"next\":\"/api/v2/items?cursor=%016llx\",\"items\":[",
			below(random, 40), below(random, 4000), (unsigned long long)bench_random(random));
	else if (kind == KIND_HTML && length > 2000)
		text_print(
			to,
			"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
			"content=\"width=device-width, initial-scale=1\">\n<title>%s %s</title>\n<link rel=\"stylesheet\" "
			"href=\"/static/site.css?v=%u\">\n</head>\n<body>\n<nav><ul><li><a href=\"/\">Home</a></li><li><a "
			"href=\"/articles\">Articles</a></li></ul></nav>\n<main>\n",
			pick_word(from, random, a), pick_word(from, random, b), below(random, 1000));
	else if (kind == KIND_SESSION)
		text_print(
			to,
			"{\"sid\":\"%016llx%016llx\",\"user\":{\"id\":%u,\"name\":\"%s\",\"roles\":[\"customer\"]},\"csrf\":"
			"\"%016llx\",\"ip\":\"10.%u.%u.%u\",\"locale\":\"en_GB\",\"steps\":[",
			(unsigned long long)bench_random(random), (unsigned long long)bench_random(random),
			below(random, 1000000), pick_word(from, random, a), (unsigned long long)bench_random(random),
			below(random, 256), below(random, 256), below(random, 256));
}

/* Appends a document of exactly that length: the last item is cut. */
static void add_document(struct text *to, const struct text *from, uint64_t *random, enum kind kind, size_t length)
{
	size_t end = to->length + length;

	add_head(to, from, random, kind, length);
	while (to->length < end) {
		if (kind == KIND_JSON)
			add_json_item(to, from, random);
		else if (kind == KIND_HTML)
			add_html_part(to, from, random);
		else if (kind == KIND_SESSION)
			add_session_step(to, from, random);
		else
			add_passage(to, from, random, kind, length < 8192 ? length : 8192);
	}
	to->length = end;
}

static size_t size_near(size_t bytes, uint64_t *random)
{
	return bytes - bytes / 10 + below(random, (unsigned int)(bytes / 5 + 1));
}

/* `from` NULL: random bytes. */
static void records_make(struct records *records, const struct text *from, const struct size *size, uint64_t seed)
{
	*records = (struct records){.count = size->count};
	records->ends = malloc(size->count * sizeof(*records->ends));
	records->kinds = malloc(size->count);
	bench_need(records->ends && records->kinds, "memory");
	for (size_t i = 0; i < size->count; i++) {
		size_t length = size_near(size->bytes, &seed);

		records->kinds[i] = (unsigned char)(i % KINDS);
		if (from) {
			add_document(&records->text, from, &seed, i % KINDS, length);
		} else {
			text_reserve(&records->text, length);
			bench_value(records->text.bytes + records->text.length, length, (uint32_t)i);
			records->text.length += length;
		}
		records->ends[i] = records->text.length;
	}
}

static void records_free(struct records *records)
{
	text_free(&records->text);
	free(records->ends);
	free(records->kinds);
}

/* ---- dictionaries ------------------------------------------------------------------------------------------- */

/* As another agent gets it: through the envelope that is stored. */
static struct dictionary *through_store(const struct dictionary *dictionary)
{
	struct envelope_buffer envelope;
	struct dictionary *found = NULL;
	bool retired;

	bench_ok(dictionary_encode(dictionary, false, 1, 1, &envelope), "dictionary_encode");
	bench_ok(dictionary_decode(envelope.bytes, envelope.length, "bench", dictionary_id(dictionary), 0, &found,
				   &retired),
		 "dictionary_decode");
	envelope_buffer_fini(&envelope);
	return found;
}

static void train(enum kind kind, const struct text *from)
{
	static const size_t lengths[] = {200, 1024, 4096, 10240};
	struct text samples = {0};
	size_t sample_sizes[TRAINING_BYTES / 1024];
	struct dictionary_training training = {
		.tenant = "bench", .content_type = kind_types[kind], .created_ms = 1, .sizes = sample_sizes};
	struct dictionary_info info;
	uint64_t seed = 1000 + kind, began;

	while (samples.length < TRAINING_BYTES && training.count < sizeof(sample_sizes) / sizeof(*sample_sizes)) {
		size_t length = size_near(lengths[training.count % 4], &seed);

		add_document(&samples, from, &seed, kind, length);
		sample_sizes[training.count++] = length;
	}
	training.samples = samples.bytes;
	began = bench_now_ns();
	bench_ok(dictionary_train(&training, &writing[kind]), "dictionary_train");
	began = bench_now_ns() - began;
	reading[kind] = through_store(writing[kind]);
	dictionary_describe(writing[kind], &info);
	printf("    %-10s %5.0f KiB from %4zu samples of %.1f MiB in %4.0f ms; prepared %.0f KiB\n", kind_names[kind],
	       (double)info.length / 1024, training.count, (double)samples.length / 1048576, (double)began / 1e6,
	       (double)info.memory / 1024);
	text_free(&samples);
}

/* ---- measuring ---------------------------------------------------------------------------------------------- */

/* Whether the way does not try to compress a value of that length; only auto has a threshold here. */
static bool is_small(const struct way *way, size_t length)
{
	size_t threshold = way->compression.threshold;

	if (way->has_dictionary && threshold == ENVELOPE_THRESHOLD_DEFAULT && length < ENVELOPE_DICTIONARY_SMALL)
		threshold = ENVELOPE_DICTIONARY_THRESHOLD_DEFAULT;
	return way->compression.choice == ENVELOPE_CHOOSE_NONE || length <= threshold;
}

static void tally_count(struct tally *tally, const struct way *way, const struct envelope_head *head, enum kind kind)
{
	tally->entries++;
	tally->plain_bytes += head->plain_size;
	tally->stored_bytes += head->stored_size;
	tally->kind_plain[kind] += head->plain_size;
	tally->kind_stored[kind] += head->stored_size;
	tally->stored_as[head->algorithm]++;
	tally->with_dictionary += head->dictionary_id != 0;
	if (head->algorithm == ENVELOPE_PLAIN && is_small(way, head->plain_size))
		tally->small++;
	else if (head->algorithm == ENVELOPE_PLAIN)
		tally->refused++;
}

/* One entry there and back. `sink` has room for the value. */
static void measure_entry(struct tally *tally, const struct way *way, enum kind kind, const char *value,
			  size_t length, char *sink)
{
	struct envelope_compression compression = way->compression;
	struct envelope_input input = {.key = "bench:entry",
				       .key_len = 11,
				       .value = value,
				       .value_len = length,
				       .created_ms = 1,
				       .version = 1,
				       .writer_id = 1};
	struct envelope_buffer envelope;
	struct envelope_view view;
	uint64_t began, encoded, decoding, decoded;

	compression.dictionary = way->has_dictionary ? writing[kind] : NULL;
	began = bench_tick();
	bench_ok(envelope_encode(&input, &compression, &envelope), "envelope_encode");
	encoded = bench_tick();
	/* What the last entry left is not to pass for this one. */
	memset(sink, 0x55, length);
	decoding = bench_tick();
	bench_ok(envelope_open(envelope.bytes, envelope.length, input.key, input.key_len, &view), "envelope_open");
	view.dictionary = view.head.dictionary_id ? reading[kind] : NULL;
	bench_ok(envelope_payload(&view, sink, length), "envelope_payload");
	decoded = bench_tick();
	errno = 0;
	bench_need(view.head.plain_size == length && memcmp(sink, value, length) == 0, "an entry came back changed");
	if (tally->rounds == 0)
		tally_count(tally, way, &view.head, kind);
	tally->encode_ns[tally->durations] = bench_span_ns(began, encoded);
	tally->decode_ns[tally->durations++] = bench_span_ns(decoding, decoded);
	envelope_buffer_fini(&envelope);
}

static double sum(const double *values, size_t count)
{
	return bench_mean(values, count) * (double)count;
}

static void measure_round(struct tally *tally, const struct way *way, const struct records *records, char *sink)
{
	size_t first = tally->durations, bytes = 0, at = 0;

	for (size_t i = 0; i < records->count && (i == 0 || bench_now_ns() < deadline_ns); i++) {
		measure_entry(tally, way, records->kinds[i], records->text.bytes + at, records->ends[i] - at, sink);
		bytes += records->ends[i] - at;
		at = records->ends[i];
	}
	tally->encode_rate[tally->rounds] =
		(double)bytes * 1e9 / sum(tally->encode_ns + first, tally->durations - first);
	tally->decode_rate[tally->rounds++] =
		(double)bytes * 1e9 / sum(tally->decode_ns + first, tally->durations - first);
}

static void measure_ways(struct tally tallies[WAYS], const struct records *records, size_t bytes)
{
	uint64_t end_ns = bench_now_ns() + (bench_is_full() ? 3500000000u : 1200000000u);
	char *sink = malloc(2 * bytes);

	bench_need(sink != NULL, "memory");
	for (size_t i = 0; i < WAYS; i++) {
		tallies[i] = (struct tally){0};
		tallies[i].encode_ns = malloc(records->count * ROUNDS_MAX * sizeof(double));
		tallies[i].decode_ns = malloc(records->count * ROUNDS_MAX * sizeof(double));
		bench_need(tallies[i].encode_ns && tallies[i].decode_ns, "memory");
	}
	for (unsigned int round = 0; round < ROUNDS_MAX && (round == 0 || bench_now_ns() < end_ns); round++) {
		for (size_t i = 0; i < WAYS; i++)
			measure_round(&tallies[i], &ways[i], records, sink);
	}
	free(sink);
}

/* ---- table -------------------------------------------------------------------------------------------------- */

/* What is printed of a tally. */
struct figures {
	double left, ratio, encode_mb, encode_p50, encode_p99, decode_mb, decode_p50, decode_p99; /* MB/s, µs */
};

static struct figures tally_figures(struct tally *tally)
{
	return (struct figures){
		.left = 100.0 * (double)tally->stored_bytes / (double)tally->plain_bytes,
		.ratio = (double)tally->plain_bytes / (double)tally->stored_bytes,
		.encode_mb = bench_median(tally->encode_rate, tally->rounds) / 1e6,
		.encode_p50 = bench_percentile(tally->encode_ns, tally->durations, 50) / 1e3,
		.encode_p99 = bench_percentile(tally->encode_ns, tally->durations, 99) / 1e3,
		.decode_mb = bench_median(tally->decode_rate, tally->rounds) / 1e6,
		.decode_p50 = bench_percentile(tally->decode_ns, tally->durations, 50) / 1e3,
		.decode_p99 = bench_percentile(tally->decode_ns, tally->durations, 99) / 1e3,
	};
}

static void row_to_json(const char *set, const char *way, const struct tally *tally, const struct figures *f)
{
	const char *path = getenv("RIPTIDE_BENCH_ROWS");
	FILE *file = path ? fopen(path, "ae") : NULL;
	char figure[80];
	json_t *object;

	if (!file)
		return;
	snprintf(figure, sizeof(figure), "compression of %s, %s", set, way);
	object =
		json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:s}",
			  "figure", figure, "unit", "microseconds and MB per second", "left_percent", f->left,
			  "encode_mb_s", f->encode_mb, "encode_p50_us", f->encode_p50, "encode_p99_us", f->encode_p99,
			  "decode_mb_s", f->decode_mb, "decode_p50_us", f->decode_p50, "decode_p99_us", f->decode_p99,
			  "entries", (json_int_t)tally->entries, "lz4", (json_int_t)tally->stored_as[ENVELOPE_LZ4],
			  "zstd", (json_int_t)tally->stored_as[ENVELOPE_ZSTD], "with_dictionary",
			  (json_int_t)tally->with_dictionary, "below_threshold", (json_int_t)tally->small,
			  "saves_too_little", (json_int_t)tally->refused, "verdict", "-");
	if (object && json_dumpf(object, file, JSON_REAL_PRECISION(6)) == 0)
		fputc('\n', file);
	json_decref(object);
	fclose(file);
}

static void print_heading(void)
{
	printf("\nenvelope_encode() and back, documents of four kinds: MB/s, and µs of one entry\n");
	printf("%-32s %7s %6s %8s %8s %8s %8s %8s %8s %6s %6s %6s %6s\n", "", "left %", "ratio", "encode", "p50",
	       "p99", "decode", "p50", "p99", "lz4", "zstd", "small", "10 %");
}

/* Dictionaries are for values up to ENVELOPE_DICTIONARY_MAX; above, the two ways are one, and measured all the same. */
static void print_limit(const struct tally *tally)
{
	errno = 0;
	bench_need(tally->with_dictionary == 0, "a dictionary was used above its limit");
	printf("%-32s as without a dictionary, which serves values up to %u KiB\n", "",
	       ENVELOPE_DICTIONARY_MAX >> 10);
}

static void print_tally(const char *set, const struct way *way, struct tally *tally)
{
	struct figures f = tally_figures(tally);

	printf("%-13s %-18s %7.1f %6.2f %8.0f %8.1f %8.1f %8.0f %8.1f %8.1f %6zu %6zu %6zu %6zu\n", set, way->name,
	       f.left, f.ratio, f.encode_mb, f.encode_p50, f.encode_p99, f.decode_mb, f.decode_p50, f.decode_p99,
	       tally->stored_as[ENVELOPE_LZ4], tally->stored_as[ENVELOPE_ZSTD], tally->small, tally->refused);
	fflush(stdout);
	row_to_json(set, way->name, tally, &f);
}

/* Measures and prints one set of entries; with `left` not NULL notes what is left of each kind. */
static void measure_set(const char *set, const struct records *records, size_t bytes, double left[KINDS][WAYS],
			bool must_be_plain)
{
	struct tally tallies[WAYS];

	measure_ways(tallies, records, bytes);
	for (size_t i = 0; i < WAYS; i++) {
		struct tally *tally = &tallies[i];

		print_tally(set, &ways[i], tally);
		if (ways[i].has_dictionary && bytes > ENVELOPE_DICTIONARY_MAX)
			print_limit(tally);
		errno = 0;
		bench_need(!must_be_plain || tally->stored_as[ENVELOPE_PLAIN] == tally->entries,
			   "random bytes were not stored as they are");
		for (unsigned int kind = 0; left && kind < KINDS; kind++)
			left[kind][i] = tally->kind_plain[kind] ? 100.0 * (double)tally->kind_stored[kind] /
									  (double)tally->kind_plain[kind]
								: -1;
		free(tally->encode_ns);
		free(tally->decode_ns);
	}
}

static void print_kinds(void)
{
	printf("\nWhat is left of each kind, per cent\n%-21s", "");
	for (size_t i = 1; i < WAYS; i++)
		printf(" %18s", ways[i].name);
	for (size_t size = 0; size < SIZES; size++) {
		for (unsigned int kind = 0; kind < KINDS; kind++) {
			printf("\n%-10s %-10s", kind == 0 ? sizes[size].name : "", kind_names[kind]);
			for (size_t i = 1; i < WAYS; i++) {
				if (left_percent[size][kind][i] < 0)
					printf(" %18s", "-");
				else
					printf(" %18.1f", left_percent[size][kind][i]);
			}
		}
	}
	printf("\n");
}

int main(void)
{
	static const struct size random_size = {"random 10 KB", 10240, 500};
	struct text halves[2] = {{0}, {0}};
	struct records records;

	if (!RIPTIDE_COMPRESSION) {
		printf("\nCompression: this build has none.\n");
		return 0;
	}
	bench_world_begin();
	deadline_ns = bench_now_ns() + PROGRAM_NS;
	bench_pin(bench_timed_cpu());
	printf("\nCompression. ");
	read_corpus(halves);
	printf("Dictionaries\n");
	for (unsigned int kind = 0; kind < KINDS; kind++)
		train(kind, &halves[0]);
	print_heading();
	for (size_t i = 0; i < SIZES; i++) {
		records_make(&records, &halves[1], &sizes[i], 1 + i);
		measure_set(sizes[i].name, &records, sizes[i].bytes, left_percent[i], false);
		records_free(&records);
	}
	records_make(&records, NULL, &random_size, 99);
	measure_set(random_size.name, &records, random_size.bytes, NULL, true);
	records_free(&records);
	print_kinds();
	for (unsigned int kind = 0; kind < KINDS; kind++) {
		dictionary_unref(&writing[kind]);
		dictionary_unref(&reading[kind]);
	}
	text_free(&halves[0]);
	text_free(&halves[1]);
	return 0;
}
