/* dict_test.c - zstd dictionaries: trained from what was written, used for small values, shared, retired, and never guessed. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hiredis/hiredis.h>
#include <jansson.h>

#include "agent/store/compress.h"
#include "client-lib/control.h"
#include "shm/os/map.h"
#include "shm/tlv.h"
#include "tests/e2e/both_stores.h"

#define VALUES 400
#define VALUE_BYTES 700
#define TYPE "application/json"

static bool auto_train;

static const char *const *both_settings(void)
{
	static const char *const by_hand[] = {"cache.compression_algorithm=auto", "dictionary.train_samples_min=300",
					      "dictionary.refresh_seconds=1",     "coherence.max_age_ms=50",
					      "redis.command_timeout_ms=2000",    NULL};
	static const char *const by_itself[] = {"cache.compression_algorithm=auto",
						"dictionary.train_samples_min=300", "dictionary.auto_train=true",
						"coherence.max_age_ms=50", NULL};

	static const char *const nothing[] = {NULL};

	if (!RIPTIDE_COMPRESSION)
		return nothing;
	return auto_train ? by_itself : by_hand;
}

/* ---- values like those of an application --------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static void make_value(char value[VALUE_BYTES + 1], int number)
{
	static const char *const names[] = {"ada", "grace", "edsger", "barbara", "donald", "tony", "leslie", "john"};
	size_t used = (size_t)snprintf(value, VALUE_BYTES + 1, "{\"page\":%d,\"items\":[", number);

	for (uint64_t i = 0; used < VALUE_BYTES; i++) {
		uint64_t r = mix((uint64_t)number * 1000 + i);

		used += (size_t)snprintf(
			value + used, VALUE_BYTES + 1 - used,
			"{\"id\":%u,\"name\":\"%s %s\",\"active\":%s,\"balance\":%u.%02u,\"created_at\":"
			"\"2026-%02u-%02uT10:%02u:00Z\",\"roles\":[\"reader\",\"writer\"]},",
			(unsigned)(r & 0xffff), names[r >> 16 & 7], names[r >> 19 & 7],
			r >> 22 & 1 ? "true" : "false", (unsigned)(r >> 23 & 0xfff), (unsigned)(r >> 35 & 63),
			1 + (unsigned)(r >> 41 & 7), 1 + (unsigned)(r >> 44 & 15), (unsigned)(r >> 48 & 31));
	}
}

static int put(riptide *handle, int number, enum riptide_compression compression)
{
	struct riptide_metadata metadata = {.content_type = TYPE};
	struct riptide_set_options options = {
		.size = sizeof(options), .metadata = &metadata, .compression = compression};
	char key[32], value[VALUE_BYTES + 1];

	snprintf(key, sizeof(key), "k%d", number);
	make_value(value, number);
	return riptide_set(handle, key, strlen(key), value, VALUE_BYTES, &options, NULL);
}

static void fill(riptide *handle, int first)
{
	for (int i = first; i < first + VALUES; i++)
		assert_int_equal(put(handle, i, RIPTIDE_COMPRESS_DEFAULT), RIPTIDE_OK);
}

/* RIPTIDE_OK: the value is right; E2E_WRONG: it is another; else what get returned. */
static int check(riptide *handle, int number)
{
	char key[32], expected[VALUE_BYTES + 1];
	struct riptide_value value;
	int status;

	snprintf(key, sizeof(key), "k%d", number);
	make_value(expected, number);
	status = riptide_get(handle, key, strlen(key), &value);
	if (status != RIPTIDE_OK)
		return status;
	if (value.length != VALUE_BYTES || memcmp(value.data, expected, VALUE_BYTES) != 0)
		status = E2E_WRONG;
	riptide_value_free(&value);
	return status;
}

static void assert_all(riptide *handle, int first)
{
	for (int i = first; i < first + VALUES; i++)
		assert_int_equal(check(handle, i), RIPTIDE_OK);
}

/* All in one submission: they wait for the same dictionary at the same time. */
static void assert_all_at_once(riptide *handle, int first)
{
	struct riptide_item *items = calloc(VALUES, sizeof(*items));
	char keys[VALUES][16], expected[VALUE_BYTES + 1];

	assert_non_null(items);
	for (int i = 0; i < VALUES; i++) {
		items[i].key = keys[i];
		items[i].key_length = (size_t)snprintf(keys[i], sizeof(keys[i]), "k%d", first + i);
	}
	assert_int_equal(riptide_get_batch(handle, items, VALUES), RIPTIDE_OK);
	for (int i = 0; i < VALUES; i++) {
		make_value(expected, first + i);
		assert_int_equal(items[i].status, RIPTIDE_OK);
		assert_int_equal(items[i].result.length, VALUE_BYTES);
		assert_memory_equal(items[i].result.data, expected, VALUE_BYTES);
	}
	riptide_batch_free(items, VALUES);
	free(items);
}

/* ---- control -------------------------------------------------------------------------------------------------- */

static char answer_text[1024];

/* The status; the document, or the text of the error in `answer_text`. */
static int ask(const struct agent_process *agent, uint16_t op, const char *type, uint32_t id, json_t **ret)
{
	unsigned char message[256], *answer;
	char trouble[RT_CONTROL_TEXT];
	struct rshm_control_header header;
	struct rshm_tlv_writer writer;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	size_t length;

	rshm_tlv_begin(&writer, message, sizeof(message), op, 0, 1);
	rshm_tlv_text(&writer, RSHM_TAG_TENANT, "default");
	if (type)
		rshm_tlv_text(&writer, RSHM_TAG_CONTENT_TYPE, type);
	if (id)
		rshm_tlv_u32(&writer, RSHM_TAG_DICTIONARY_ID, id);
	length = (size_t)rshm_tlv_finish(&writer);
	assert_int_equal(rt_control_ask(agent->socket, message, length, rshm_now_ms() + 10000, &answer, &length, NULL,
					trouble),
			 0);
	assert_int_equal(rshm_tlv_open(&reader, answer, length, &header), 0);
	answer_text[0] = '\0';
	while (rshm_tlv_next(&reader, &tlv) > 0) {
		if (tlv.tag == RSHM_TAG_ERROR_TEXT)
			(void)rshm_tlv_get_text(&tlv, answer_text, sizeof(answer_text));
		if (tlv.tag == RSHM_TAG_JSON && ret)
			*ret = json_loadb((const char *)tlv.value, tlv.length, 0, NULL);
	}
	free(answer);
	return header.status;
}

static uint32_t train(const struct agent_process *agent)
{
	json_t *document = NULL;
	uint32_t id;
	int status = ask(agent, RSHM_CONTROL_DICT_TRAIN, TYPE, 0, &document);

	if (status != RSHM_OK)
		print_error("train: %d %s\n", status, answer_text);
	assert_int_equal(status, RSHM_OK);
	id = (uint32_t)json_integer_value(json_object_get(document, "id"));
	assert_true(json_integer_value(json_object_get(document, "bytes")) > 256);
	json_decref(document);
	assert_int_not_equal(id, 0);
	return id;
}

static int64_t number_in_list(const struct agent_process *agent, const char *list, const char *name)
{
	json_t *document = NULL, *first;
	int64_t value = -1;

	assert_int_equal(ask(agent, RSHM_CONTROL_DICT_LIST, NULL, 0, &document), RSHM_OK);
	first = json_array_get(json_object_get(document, list), 0);
	if (json_is_boolean(json_object_get(first, name)))
		value = json_is_true(json_object_get(first, name));
	else if (first)
		value = json_integer_value(json_object_get(first, name));
	json_decref(document);
	return value;
}

static double ratio(riptide *handle)
{
	struct riptide_stats stats = {.size = sizeof(stats)};

	assert_int_equal(riptide_stats(handle, &stats), RIPTIDE_OK);
	return stats.avg_compression_ratio;
}

/* Ended in order, so that no hot copy is left: what is read afterwards comes from the store. */
static void restart(struct fixture *f)
{
	riptide_close(&f->handle);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_open(&f->agent, NULL, 5000, &f->handle), RIPTIDE_OK);
}

/* ---- cases ---------------------------------------------------------------------------------------------------- */

static void training_on_demand_makes_small_values_smaller(void **state)
{
	struct fixture *f = both_fixture(state);
	uint32_t id;

	fill(f->handle, 0);
	assert_int_equal(number_in_list(&f->agent, "samples", "samples"), VALUES);
	assert_int_equal(number_in_list(&f->agent, "samples", "enough"), 1);
	/* Below the threshold without a dictionary. */
	e2e_pause_ms(600);
	assert_true(ratio(f->handle) == 1.0);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.dictionary_sets"), 0);
	id = train(&f->agent);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.dictionaries.0"), id);
	fill(f->handle, VALUES);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.dictionary_sets", VALUES, 5000));
	/* Half of all that was written is at its full length: the other half takes less than 45 %. */
	assert_true(ratio(f->handle) < 0.725);
	assert_true(ratio(f->handle) > 0.5);
	assert_all(f->handle, 0);
	assert_all(f->handle, VALUES);
	/* Nothing is done to a value that is not to be compressed. */
	assert_int_equal(put(f->handle, 5000, RIPTIDE_COMPRESS_LZ4), RIPTIDE_OK);
	assert_int_equal(put(f->handle, 5001, RIPTIDE_COMPRESS_NONE), RIPTIDE_OK);
	e2e_pause_ms(600);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.dictionary_sets"), VALUES);
	assert_int_equal(check(f->handle, 5000), RIPTIDE_OK);
}

static void a_restarted_agent_reads_and_writes_with_it(void **state)
{
	struct fixture *f = both_fixture(state);
	uint32_t id;

	fill(f->handle, 0);
	id = train(&f->agent);
	fill(f->handle, VALUES);
	restart(f);
	assert_all(f->handle, VALUES);
	assert_all(f->handle, 0);
	assert_int_equal(e2e_await(&f->agent, "tenants.0.dictionaries.0", 1, 5000), id);
	fill(f->handle, 2 * VALUES);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.dictionary_sets", VALUES, 5000));
	restart(f);
	/* Without waiting for what is learnt at start: whoever meets it first fetches it. */
	assert_all(f->handle, 2 * VALUES);
}

static void an_agent_that_never_trained_reads_and_writes_with_it(void **state)
{
	struct fixture *f = both_fixture(state);
	const char *settings[] = {"agent.backend=redis",          f->url,
				  "coherence.max_age_ms=50",      "cache.compression_algorithm=zstd",
				  "dictionary.refresh_seconds=1", NULL};
	struct agent_process other;
	riptide *handle;
	uint32_t id;

	assert_int_equal(agent_process_start(&other, settings), 0);
	assert_int_equal(e2e_open(&other, NULL, 5000, &handle), RIPTIDE_OK);
	fill(f->handle, 0);
	id = train(&f->agent);
	fill(f->handle, VALUES);
	assert_all(handle, VALUES);
	assert_int_equal(e2e_await(&other, "tenants.0.dictionaries.0", 1, 5000), id);
	fill(handle, 2 * VALUES);
	assert_true(e2e_await_exactly(&other, "tenants.0.dictionary_sets", VALUES, 5000));
	assert_all(f->handle, 2 * VALUES);
	/* Dropped here, it is not used there any more either, and read by both. */
	assert_int_equal(ask(&f->agent, RSHM_CONTROL_DICT_DROP, NULL, id, NULL), RSHM_OK);
	assert_true(e2e_await_exactly(&other, "tenants.0.dictionaries.0", -1, 5000));
	fill(handle, 3 * VALUES);
	e2e_pause_ms(600);
	assert_int_equal(e2e_number(&other, "tenants.0.dictionary_sets"), VALUES);
	assert_all(handle, 2 * VALUES);
	riptide_close(&handle);
	assert_int_equal(agent_process_stop_and_clean(&other), 0);
}

static void a_dropped_one_is_read_and_not_written_with(void **state)
{
	struct fixture *f = both_fixture(state);
	uint32_t id, second;

	fill(f->handle, 0);
	id = train(&f->agent);
	fill(f->handle, VALUES);
	/* The next one takes its place; dropping that does not bring it back. */
	second = train(&f->agent);
	assert_int_not_equal(second, id);
	fill(f->handle, 2 * VALUES);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.dictionary_sets", 2 * VALUES, 5000));
	assert_int_equal(ask(&f->agent, RSHM_CONTROL_DICT_DROP, NULL, second, NULL), RSHM_OK);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.dictionaries.0"), -1);
	assert_int_equal(number_in_list(&f->agent, "dictionaries", "retired"), 1);
	fill(f->handle, 3 * VALUES);
	e2e_pause_ms(600);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.dictionary_sets"), 2 * VALUES);
	restart(f);
	assert_all_at_once(f->handle, VALUES);
	for (int first = 0; first <= 3 * VALUES; first += VALUES)
		assert_all(f->handle, first);
	/* Fetched for reading, it is still not used. */
	fill(f->handle, 4 * VALUES);
	e2e_pause_ms(600);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.dictionary_sets"), 0);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.dictionaries.0"), -1);
}

static void clear_leaves_dictionaries_alone(void **state)
{
	struct fixture *f = both_fixture(state);
	uint32_t id;

	fill(f->handle, 0);
	id = train(&f->agent);
	assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
	assert_int_equal(riptide_clear(f->handle), RIPTIDE_OK);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.unswept_generations", 0, 5000));
	fill(f->handle, VALUES);
	restart(f);
	assert_int_equal(e2e_await(&f->agent, "tenants.0.dictionaries.0", 1, 5000), id);
	assert_all(f->handle, VALUES);
	assert_int_equal(check(f->handle, 0), RIPTIDE_MISS);
}

static void what_cannot_be_done_is_told_with_numbers(void **state)
{
	struct fixture *f = both_fixture(state);

	assert_int_equal(ask(&f->agent, RSHM_CONTROL_DICT_TRAIN, NULL, 0, NULL), RSHM_E_INVALID);
	assert_non_null(strstr(answer_text, "no samples"));
	assert_non_null(strstr(answer_text, "300 are needed"));
	for (int i = 0; i < 20; i++)
		assert_int_equal(put(f->handle, i, RIPTIDE_COMPRESS_DEFAULT), RIPTIDE_OK);
	assert_int_equal(ask(&f->agent, RSHM_CONTROL_DICT_TRAIN, NULL, 0, NULL), RSHM_E_INVALID);
	assert_non_null(strstr(answer_text, "20, and 300 are needed"));
	assert_int_equal(ask(&f->agent, RSHM_CONTROL_DICT_DROP, NULL, 77, NULL), RSHM_E_INVALID);
	assert_non_null(strstr(answer_text, "no dictionary 77"));
	assert_int_equal(ask(&f->agent, RSHM_CONTROL_DICT_SHOW, NULL, 77, NULL), RSHM_E_INVALID);
	assert_int_equal(ask(&f->agent, RSHM_CONTROL_DICT_SHOW, NULL, 0, NULL), RSHM_E_INVALID);
	assert_int_equal(ask(&f->agent, RSHM_CONTROL_DICT_TRAIN,
			     "a content type of more than sixty-four characters is longer than any that is trained",
			     0, NULL),
			 RSHM_E_INVALID);
	assert_int_equal(number_in_list(&f->agent, "dictionaries", "id"), -1);
}

static void by_option_it_is_trained_and_used_by_itself(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f->handle, 0);
	assert_true(e2e_await(&f->agent, "tenants.0.dictionaries.0", 1, 10000) > 0);
	fill(f->handle, VALUES);
	assert_true(e2e_await_exactly(&f->agent, "tenants.0.dictionary_sets", VALUES, 5000));
	restart(f);
	assert_all(f->handle, VALUES);
}

/* ---- riptidectl ------------------------------------------------------------------------------------------------ */

/* Runs `riptidectl dict ARGUMENTS`; what it prints, stderr too, is in `answer_text`. Returns its exit status. */
static int ctl_dict(struct fixture *f, const char *arguments)
{
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	char command[512];
	size_t length;
	FILE *pipe;
	int status;

	snprintf(command, sizeof(command), "%s/riptidectl --socket %s dict %s 2>&1", build ? build : "build",
		 f->agent.socket, arguments);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	length = fread(answer_text, 1, sizeof(answer_text) - 1, pipe);
	answer_text[length] = '\0';
	status = pclose(pipe);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void riptidectl_lists_trains_shows_and_drops(void **state)
{
	struct fixture *f = both_fixture(state);
	char arguments[64];
	json_t *document;
	json_int_t id;

	assert_int_equal(ctl_dict(f, "list"), 0);
	assert_non_null(strstr(answer_text, "No dictionaries."));
	assert_non_null(strstr(answer_text, "No samples"));
	assert_int_equal(ctl_dict(f, "train"), 1);
	assert_non_null(strstr(answer_text, "300 are needed"));
	fill(f->handle, 0);
	assert_int_equal(ctl_dict(f, "list"), 0);
	assert_non_null(strstr(answer_text, "enough to train"));
	assert_int_equal(e2e_put(f->handle, "untyped",
				 "a value of sixty-four bytes and more, that has no content type at all"),
			 RIPTIDE_OK);
	assert_int_equal(ctl_dict(f, "train"), 1);
	assert_non_null(strstr(answer_text, "tell which, by --type"));
	assert_non_null(strstr(answer_text, "\"\" (1 of 300)"));
	assert_int_equal(ctl_dict(f, "train --type " TYPE " --json"), 0);
	document = json_loads(answer_text, 0, NULL);
	id = json_integer_value(json_object_get(document, "id"));
	assert_string_equal(json_string_value(json_object_get(document, "content_type")), TYPE);
	json_decref(document);
	snprintf(arguments, sizeof(arguments), "show %lld", (long long)id);
	assert_int_equal(ctl_dict(f, arguments), 0);
	assert_non_null(strstr(answer_text, "in use"));
	snprintf(arguments, sizeof(arguments), "drop %lld", (long long)id);
	assert_int_equal(ctl_dict(f, arguments), 0);
	assert_int_equal(ctl_dict(f, "list"), 0);
	assert_non_null(strstr(answer_text, "retired: read only"));
	assert_int_equal(ctl_dict(f, "drop 1"), 1);
	assert_int_equal(ctl_dict(f, "drop 0"), 2);
	assert_int_equal(ctl_dict(f, "drop"), 2);
	assert_int_equal(ctl_dict(f, "drop 4294967296"), 2);
	assert_int_equal(ctl_dict(f, "list --type x"), 2);
	assert_int_equal(ctl_dict(f, "burn"), 2);
	assert_int_equal(ctl_dict(f, "list --tenant nobody"), 4);
}

/* ---- a dictionary that is not there ---------------------------------------------------------------------------- */

static void delete_in_redis(struct fixture *f, uint32_t id)
{
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	redisReply *reply = redisCommand(redis, "DEL riptide:v1:{default.0}:1:d:%u", id);

	assert_int_equal(reply->integer, 1);
	freeReplyObject(reply);
	redisFree(redis);
}

static int64_t redis_number(struct fixture *f, const char *command)
{
	redisContext *redis = redisConnectUnix(f->server.unix_path);
	redisReply *reply = redisCommand(redis, command);
	int64_t number = reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;

	freeReplyObject(reply);
	redisFree(redis);
	return number;
}

static void what_a_server_loses_is_stored_again(void **state)
{
	struct fixture *f = both_fixture(state);
	char exists[128], delete[128];
	uint64_t until;
	uint32_t id;

	fill(f->handle, 0);
	id = train(&f->agent);
	snprintf(exists, sizeof(exists), "EXISTS riptide:v1:{default.0}:1:d:%u riptide:v1:{default.0}:1:d:index", id);
	snprintf(delete, sizeof(delete), "DEL riptide:v1:{default.0}:1:d:%u", id);
	assert_int_equal(redis_number(f, exists), 2);
	for (int round = 0; round < 3; round++) {
		static const char *const losses[] = {"FLUSHALL", NULL, "DEL riptide:v1:{default.0}:1:d:index"};

		(void)redis_number(f, losses[round] ? losses[round] : delete);
		assert_true(redis_number(f, exists) < 2);
		until = e2e_now_ms() + 5000;
		while (redis_number(f, exists) < 2 && e2e_now_ms() < until)
			e2e_pause_ms(20);
		assert_int_equal(redis_number(f, exists), 2);
	}
	fill(f->handle, VALUES);
	restart(f);
	assert_int_equal(e2e_await(&f->agent, "tenants.0.dictionaries.0", 1, 5000), id);
	assert_all(f->handle, VALUES);
}

/* Changes the bytes behind each dictionary's magic. */
static void damage_in_file(struct fixture *f)
{
	char path[256];
	struct stat about;
	unsigned char *bytes;
	int fd, found = 0;

	snprintf(path, sizeof(path), "%s/store/data.mdb", f->agent.state_dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &about), 0);
	bytes = mmap(NULL, (size_t)about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(bytes, MAP_FAILED);
	for (off_t i = 0; i + 64 < about.st_size; i++)
		if (memcmp(bytes + i, "RPTD\1", 5) == 0) {
			memset(bytes + i + 24, 0xa5, 40);
			found++;
		}
	munmap(bytes, (size_t)about.st_size);
	close(fd);
	assert_true(found > 0);
}

static void a_missing_one_is_an_error_and_never_wrong_bytes(void **state)
{
	struct fixture *f = both_fixture(state);
	uint32_t id;

	fill(f->handle, 0);
	id = train(&f->agent);
	fill(f->handle, VALUES);
	riptide_close(&f->handle);
	assert_int_equal(agent_process_kill(&f->agent, SIGTERM), 0);
	if (f->redis)
		delete_in_redis(f, id);
	else
		damage_in_file(f);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(e2e_open(&f->agent, NULL, 5000, &f->handle), RIPTIDE_OK);
	for (int i = VALUES; i < 2 * VALUES; i++)
		assert_int_equal(check(f->handle, i), RIPTIDE_ENODICT);
	assert_all(f->handle, 0);
	/* Written anew, without: there is none for writing. */
	assert_int_equal(put(f->handle, VALUES, RIPTIDE_COMPRESS_DEFAULT), RIPTIDE_OK);
	assert_int_equal(check(f->handle, VALUES), RIPTIDE_OK);
	assert_int_equal(e2e_number(&f->agent, "tenants.0.dictionary_sets"), 0);
	/* And a new one can be trained. */
	fill(f->handle, 2 * VALUES);
	assert_int_not_equal(train(&f->agent), id);
	fill(f->handle, 3 * VALUES);
	restart(f);
	assert_all(f->handle, 3 * VALUES);
	assert_int_equal(check(f->handle, VALUES + 1), RIPTIDE_ENODICT);
}

static void a_build_without_compression_says_so(void **state)
{
	struct fixture *f = both_fixture(state);

	fill(f->handle, 0);
	assert_int_equal(ask(&f->agent, RSHM_CONTROL_DICT_TRAIN, TYPE, 0, NULL), RSHM_E_INVALID);
	assert_non_null(strstr(answer_text, "this build has no compression"));
	assert_all(f->handle, 0);
}

static int setup_auto_embedded(void **state)
{
	int status;

	auto_train = true;
	status = both_start(state, false);
	auto_train = false;
	return status;
}

static int setup_auto_redis(void **state)
{
	int status;

	auto_train = true;
	status = both_start(state, true);
	auto_train = false;
	return status;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(training_on_demand_makes_small_values_smaller),
		BOTH_STORES(a_restarted_agent_reads_and_writes_with_it),
		BOTH_STORES(a_dropped_one_is_read_and_not_written_with),
		BOTH_STORES(a_missing_one_is_an_error_and_never_wrong_bytes),
		BOTH_STORES(what_cannot_be_done_is_told_with_numbers),
		BOTH_STORES(clear_leaves_dictionaries_alone),
		BOTH_STORES(riptidectl_lists_trains_shows_and_drops),
		cmocka_unit_test_setup_teardown(by_option_it_is_trained_and_used_by_itself, setup_auto_embedded,
						both_teardown),
		cmocka_unit_test_setup_teardown(by_option_it_is_trained_and_used_by_itself, setup_auto_redis,
						both_teardown),
		cmocka_unit_test_setup_teardown(what_a_server_loses_is_stored_again, both_setup_redis, both_teardown),
		cmocka_unit_test_setup_teardown(an_agent_that_never_trained_reads_and_writes_with_it,
						both_setup_redis, both_teardown),
	};

	const struct CMUnitTest plain[] = {BOTH_STORES(a_build_without_compression_says_so)};

	return RIPTIDE_COMPRESSION ? cmocka_run_group_tests(tests, NULL, NULL)
				   : cmocka_run_group_tests(plain, NULL, NULL);
}
