/* The control plane as its peers meet it when all behave: requests and answers, libnng's REQ, start and end. */
#include "tests/unit/agent/control/control_fixture.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>

#include "agent/control/audit.h"

/* ---- requests ------------------------------------------------------------------------------------------------ */

static void ping_and_detach_are_answered(void **state)
{
	struct control_figures figures;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_PING), RSHM_OK);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_DETACH), RSHM_OK);
	figures = plane_figures(&p);
	assert_int_equal(figures.requests, 2);
	assert_int_equal(figures.connections, 1);
	close(fd);
	plane_stop(&p);
}

static void reports_and_reload_answer_what_the_hooks_say(void **state)
{
	static const uint16_t ops[] = {RSHM_CONTROL_STATUS, RSHM_CONTROL_STATS, RSHM_CONTROL_CLIENTS};
	unsigned char message[64];
	struct reply reply;
	struct rshm_tlv tlv;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	for (size_t i = 0; i < 3; i++) {
		assert_true(peer_send_frame(fd, 5, message, message_of(message, sizeof(message), ops[i], 31)));
		assert_true(peer_receive_reply(fd, 5, &reply));
		assert_int_equal(reply.header.op, ops[i]);
		assert_int_equal(reply.header.request_id, 31);
		assert_int_equal(reply.header.status, RSHM_OK);
		assert_true(reply_find(&reply, RSHM_TAG_JSON, &tlv));
		assert_memory_equal(tlv.value, "{\"ok\":true}", tlv.length);
		assert_int_equal(seen(&p)->report_op, ops[i]);
		free(reply.bytes);
	}
	assert_int_equal(peer_op(fd, RSHM_CONTROL_RELOAD), RSHM_OK);
	assert_int_equal(seen(&p)->reloads, 1);
	plane_script(&p, SCRIPT_REFUSE);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_STATUS), RSHM_E_BACKEND);
	close(fd);
	plane_stop(&p);
}

/* NULL and 0: the tag is left out. */
static int ask_dictionary(int fd, uint16_t op, const char *tenant, const char *type, uint32_t id)
{
	unsigned char message[512];
	struct rshm_tlv_writer writer;

	rshm_tlv_begin(&writer, message, sizeof(message), op, 0, 32);
	if (tenant)
		rshm_tlv_text(&writer, RSHM_TAG_TENANT, tenant);
	if (type)
		rshm_tlv_text(&writer, RSHM_TAG_CONTENT_TYPE, type);
	if (id)
		rshm_tlv_u32(&writer, RSHM_TAG_DICTIONARY_ID, id);
	return peer_ask(fd, message, (size_t)rshm_tlv_finish(&writer), NULL);
}

static void what_is_asked_about_dictionaries_reaches_the_hook_checked(void **state)
{
	char longest[65], longer[66];
	struct plane p;
	int fd;

	(void)state;
	memset(longer, 'x', 65);
	memset(longest, 'x', 64);
	longer[65] = longest[64] = '\0';
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(ask_dictionary(fd, RSHM_CONTROL_DICT_LIST, "shop", NULL, 0), RSHM_OK);
	assert_string_equal(seen(&p)->tenant, "shop");
	assert_string_equal(seen(&p)->content_type, "not said");
	assert_int_equal(ask_dictionary(fd, RSHM_CONTROL_DICT_TRAIN, "shop", "", 0), RSHM_OK);
	assert_string_equal(seen(&p)->content_type, "");
	assert_int_equal(ask_dictionary(fd, RSHM_CONTROL_DICT_TRAIN, "shop", longest, 0), RSHM_OK);
	assert_string_equal(seen(&p)->content_type, longest);
	assert_int_equal(ask_dictionary(fd, RSHM_CONTROL_DICT_DROP, "shop", NULL, 4000000000u), RSHM_OK);
	assert_int_equal(seen(&p)->dictionary_id, 4000000000u);
	assert_int_equal(seen(&p)->report_op, RSHM_CONTROL_DICT_DROP);
	assert_int_equal(seen(&p)->dictionary_calls, 4);
	assert_int_equal(ask_dictionary(fd, RSHM_CONTROL_DICT_TRAIN, "shop", longer, 0), RSHM_E_INVALID);
	assert_int_equal(ask_dictionary(fd, RSHM_CONTROL_DICT_LIST, NULL, NULL, 0), RSHM_E_INVALID);
	assert_int_equal(ask_dictionary(fd, RSHM_CONTROL_DICT_LIST, longer, NULL, 0), RSHM_E_INVALID);
	assert_int_equal(ask_dictionary(fd, RSHM_CONTROL_DICT_SHOW, "shop", NULL, 0), RSHM_E_INVALID);
	assert_int_equal(ask_dictionary(fd, RSHM_CONTROL_DICT_DROP, "shop", NULL, 0), RSHM_E_INVALID);
	assert_int_equal(seen(&p)->dictionary_calls, 4);
	close(fd);
	plane_stop(&p);
}

static int dictionaries_are_denied(struct plane *p, void *context)
{
	int fd = peer_connect(p->control_path);

	(void)context;
	if (fd < 0 || !peer_hello(fd))
		return 1;
	for (uint16_t op = RSHM_CONTROL_DICT_LIST; op <= RSHM_CONTROL_DICT_DROP; op++)
		if (ask_dictionary(fd, op, "default", "", 1) != RSHM_E_DENIED)
			return 2;
	return 0;
}

static void dictionaries_are_for_root_and_the_agents_own_user(void **state)
{
	struct plane p;

	(void)state;
	if (geteuid() != 0)
		skip();
	plane_init(&p);
	plane_start(&p);
	assert_int_equal(as_user(12345, dictionaries_are_denied, &p, NULL), 0);
	assert_int_equal(seen(&p)->dictionary_calls, 0);
	plane_stop(&p);
}

static int reload_is_denied(struct plane *p, void *context)
{
	int fd = peer_connect(p->control_path);

	(void)context;
	return fd >= 0 && peer_hello(fd) && peer_op(fd, RSHM_CONTROL_RELOAD) == RSHM_E_DENIED &&
			       peer_op(fd, RSHM_CONTROL_PING) == RSHM_OK
		       ? 0
		       : 1;
}

static void remove_files(const char *folder)
{
	DIR *open_folder = opendir(folder);
	const struct dirent *entry;

	assert_non_null(open_folder);
	while ((entry = readdir(open_folder)) != NULL)
		if (entry->d_name[0] != '.')
			assert_int_equal(unlinkat(dirfd(open_folder), entry->d_name, 0), 0);
	closedir(open_folder);
	assert_int_equal(rmdir(folder), 0);
}

static int the_audit_log_is_denied(struct plane *p, void *context)
{
	int fd = peer_connect(p->control_path);

	(void)context;
	return fd >= 0 && peer_hello(fd) && peer_op(fd, RSHM_CONTROL_AUDIT) == RSHM_E_DENIED ? 0 : 1;
}

static int ask_for_lines(int fd, uint32_t lines)
{
	unsigned char message[64];
	struct rshm_tlv_writer writer;

	rshm_tlv_begin(&writer, message, sizeof(message), RSHM_CONTROL_AUDIT, 0, 77);
	rshm_tlv_u32(&writer, RSHM_TAG_LINES, lines);
	return peer_ask(fd, message, (size_t)rshm_tlv_finish(&writer), NULL);
}

static void the_audit_log_is_for_root_and_the_agents_own_user(void **state)
{
	struct audit_options options = {.retention_days = 1};
	char folder[96], error[256];
	struct audit_figures figures;
	struct audit *audit;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	snprintf(folder, sizeof(folder), "%s/audit", p.folder);
	options.folder = folder;
	assert_int_equal(audit_open(&options, clock_realtime_ms(), &audit, error, sizeof(error)), RSHM_OK);
	p.options.audit = audit;
	p.descriptors_before += 2; /* its folder and the day's file */
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(ask_for_lines(fd, 1), RSHM_OK);
	assert_int_equal(ask_for_lines(fd, AUDIT_TAIL_MAX), RSHM_OK);
	assert_int_equal(ask_for_lines(fd, 0), RSHM_E_INVALID);
	assert_int_equal(ask_for_lines(fd, AUDIT_TAIL_MAX + 1), RSHM_E_INVALID);
	close(fd);
	if (geteuid() == 0)
		assert_int_equal(as_user(12345, the_audit_log_is_denied, &p, NULL), 0);
	remove_files(folder);
	plane_stop(&p);
	audit_figures(audit, &figures);
	assert_int_equal(figures.written, geteuid() == 0 ? 5 : 4);
	audit_close(&audit, clock_realtime_ms());
}

static void reload_is_for_root_and_the_agents_own_user(void **state)
{
	struct plane p;

	(void)state;
	if (geteuid() != 0)
		skip();
	plane_init(&p);
	plane_start(&p);
	assert_int_equal(as_user(12345, reload_is_denied, &p, NULL), 0);
	assert_int_equal(seen(&p)->reloads, 0);
	plane_stop(&p);
}

static void answer_above_its_limit_is_refused_with_its_size(void **state)
{
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	p.options.answer_bytes = 65536;
	p.json = malloc(70000);
	must(p.json != NULL);
	memset(p.json, ' ', 69999);
	p.json[69999] = '\0';
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_STATS), RSHM_E_TOOBIG);
	close(fd);
	plane_stop(&p);
	free(p.json);
}

static void unknown_operation_is_unsupported(void **state)
{
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(peer_op(fd, 299), RSHM_E_UNSUPPORTED);
	assert_int_equal(peer_op(fd, RSHM_OP_GET), RSHM_E_UNSUPPORTED);
	assert_int_equal(peer_op(fd, 0), RSHM_E_UNSUPPORTED);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_PING), RSHM_OK);
	close(fd);
	plane_stop(&p);
}

static void undecodable_message_is_answered_if_it_has_a_header(void **state)
{
	unsigned char message[64] = {0};
	size_t length = message_of(message, sizeof(message), RSHM_CONTROL_PING, 9);
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	/* More bytes than the header says; then a tag that is longer than the message. */
	assert_int_equal(peer_ask(fd, message, length + 3, NULL), RSHM_E_PROTOCOL);
	message[12] = 6;
	message[16] = 1;
	message[18] = 200;
	assert_int_equal(peer_ask(fd, message, length + 6, NULL), RSHM_E_PROTOCOL);
	message_of(message, sizeof(message), RSHM_CONTROL_PING, 9);
	message[2] = 99;
	assert_int_equal(peer_ask(fd, message, length, NULL), RSHM_E_UNSUPPORTED);
	/* No header at all. */
	assert_int_equal(peer_ask(fd, message, 15, NULL), 1000);
	assert_true(peer_is_closed_within(fd, 1000));
	close(fd);
	fd = peer_open(&p);
	assert_int_equal(peer_ask(fd, message, 0, NULL), 1000);
	close(fd);
	assert_int_equal(plane_figures(&p).malformed, 5);
	plane_stop(&p);
}

static void requests_sent_at_once_are_answered_one_after_the_other(void **state)
{
	unsigned char message[64], stream[20 * 64];
	size_t length = 0, message_length = message_of(message, sizeof(message), RSHM_CONTROL_PING, 1);
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	fd = peer_open(&p);
	for (uint32_t i = 0; i < 20; i++) {
		length += frame_head(stream + length, i, message_length);
		memcpy(stream + length, message, message_length);
		length += message_length;
	}
	assert_true(peer_send(fd, stream, length));
	for (uint32_t i = 0; i < 20; i++) {
		struct reply reply;

		assert_true(peer_receive_reply(fd, i, &reply));
		free(reply.bytes);
	}
	close(fd);
	plane_stop(&p);
}

/* ---- hooks that are slow ------------------------------------------------------------------------------------- */

static void hook_that_never_answers_is_answered_for_at_the_deadline(void **state)
{
	struct control_figures figures;
	struct plane p;
	uint64_t begun_ms;
	int fd;

	(void)state;
	plane_init(&p);
	p.options.request_timeout_ms = 200;
	plane_start(&p);
	plane_script(&p, SCRIPT_NEVER);
	fd = peer_open(&p);
	begun_ms = clock_monotonic_ms();
	assert_int_equal(peer_op(fd, RSHM_CONTROL_STATUS), RSHM_E_TIMEDOUT);
	assert_in_range(clock_monotonic_ms() - begun_ms, 180, 1500);
	assert_int_equal(peer_attach(fd, &good_words, NULL), RSHM_E_TIMEDOUT);
	/* The connection goes on, and late answers go nowhere: what they grant is released. */
	assert_int_equal(peer_op(fd, RSHM_CONTROL_PING), RSHM_OK);
	plane_do(&p, answer_pending, NULL);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_PING), RSHM_OK);
	figures = plane_figures(&p);
	assert_int_equal(figures.timed_out, 2);
	assert_int_equal(figures.attaches, 0);
	assert_int_equal(figures.refused_attaches, 1);
	close(fd);
	plane_stop(&p);
	assert_int_equal(p.seen.released, 1);
}

static void hooks_that_never_answer_cost_a_bounded_number_of_requests(void **state)
{
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	p.options.request_timeout_ms = 20;
	p.options.connections = 4;
	plane_start(&p);
	plane_script(&p, SCRIPT_NEVER);
	fd = peer_open(&p);
	for (int i = 0; i < 8; i++)
		assert_int_equal(peer_op(fd, RSHM_CONTROL_STATUS), RSHM_E_TIMEDOUT);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_STATUS), RSHM_E_AGAIN);
	assert_int_equal(peer_attach(fd, &good_words, NULL), RSHM_E_AGAIN);
	plane_do(&p, answer_pending, NULL);
	plane_script(&p, SCRIPT_ACCEPT);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_STATUS), RSHM_OK);
	close(fd);
	plane_stop(&p);
}

static void late_answer_within_the_deadline_arrives(void **state)
{
	unsigned char message[1024];
	size_t length = attach_message(message, sizeof(message), 4, &good_words);
	struct reply reply;
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	plane_script(&p, SCRIPT_NEVER);
	fd = peer_open(&p);
	assert_true(peer_send_frame(fd, 1, message, length));
	while (plane_figures(&p).requests == 0)
		sleep_ms(1);
	plane_do(&p, answer_pending, NULL);
	assert_true(peer_receive_reply(fd, 1, &reply));
	assert_int_equal(reply.header.status, RSHM_OK);
	free(reply.bytes);
	close(fd);
	plane_stop(&p);
}

/* ---- libnng -------------------------------------------------------------------------------------------------- */

static nng_socket req_open(const struct plane *p)
{
	char url[128];
	nng_socket s;

	snprintf(url, sizeof(url), "ipc://%s", p->control_path);
	must(nng_req0_open(&s) == 0);
	must(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, 10000) == 0);
	must(nng_socket_set_ms(s, NNG_OPT_SENDTIMEO, 10000) == 0);
	must(nng_socket_set_ms(s, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE) == 0);
	must(nng_dial(s, url, NULL, 0) == 0);
	return s;
}

/* A message of about `size` bytes; its answer's status. Runs on threads: must(), not assert. */
static int req_ask(nng_socket s, uint16_t op, uint32_t id, size_t size)
{
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	struct rshm_tlv_writer writer;
	unsigned char *message = malloc(size + 64), *filler = calloc(1, size + 1);
	void *answer;
	size_t length;
	int result;

	must(message != NULL && filler != NULL);
	rshm_tlv_begin(&writer, message, size + 64, op, 0, id);
	rshm_tlv_bytes(&writer, 998, filler, size);
	must(nng_send(s, message, (size_t)rshm_tlv_finish(&writer), 0) == 0);
	free(message);
	free(filler);
	result = nng_recv(s, &answer, &length, NNG_FLAG_ALLOC);
	if (result != 0)
		return 1000 + result;
	must(rshm_tlv_open(&reader, answer, length, &header) == RSHM_OK);
	must(header.request_id == id && header.op == op);
	nng_free(answer, length);
	return header.status;
}

static void req_socket_of_libnng_is_served(void **state)
{
	static const size_t sizes[] = {0, 1, 100, 4000, 16370, 16384, 20000, 65536, 300000, 900 * 1024};
	struct plane p;
	nng_socket s;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	s = req_open(&p);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		assert_int_equal(req_ask(s, RSHM_CONTROL_PING, (uint32_t)i, sizes[i]), RSHM_OK);
	assert_int_equal(req_ask(s, RSHM_CONTROL_STATUS, 1, 10), RSHM_OK);
	assert_int_equal(req_ask(s, 250, 1, 10), RSHM_E_UNSUPPORTED);
	nng_close(s);
	plane_stop(&p);
}

static void req_socket_of_libnng_receives_a_large_answer(void **state)
{
	struct plane p;
	nng_socket s;

	(void)state;
	plane_init(&p);
	p.json = malloc(900 * 1024);
	must(p.json != NULL);
	memset(p.json, 'x', 900 * 1024 - 1);
	p.json[900 * 1024 - 1] = '\0';
	plane_start(&p);
	s = req_open(&p);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(req_ask(s, RSHM_CONTROL_CLIENTS, i, 900 * 1024), RSHM_OK);
	nng_close(s);
	plane_stop(&p);
	free(p.json);
}

static void *ask_in_parallel(void *context)
{
	nng_socket s = req_open(context);

	for (uint32_t i = 0; i < 50; i++)
		must(req_ask(s, i % 2 ? RSHM_CONTROL_PING : RSHM_CONTROL_STATS, i, i * 700) == RSHM_OK);
	nng_close(s);
	return NULL;
}

static void sixteen_req_sockets_are_served_in_parallel(void **state)
{
	pthread_t threads[16];
	struct plane p;

	(void)state;
	plane_init(&p);
	plane_start(&p);
	for (int i = 0; i < 16; i++)
		must(pthread_create(&threads[i], NULL, ask_in_parallel, &p) == 0);
	for (int i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(plane_figures(&p).requests, 16 * 50);
	assert_int_equal(plane_figures(&p).malformed, 0);
	plane_stop(&p);
}

/* ---- start and end ------------------------------------------------------------------------------------------- */

static void sockets_get_their_mode_whatever_the_umask(void **state)
{
	struct stat st;
	struct plane p;
	mode_t before = umask(0077);

	(void)state;
	plane_init(&p);
	p.options.socket_mode = 0660;
	plane_start(&p);
	assert_int_equal(stat(p.control_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	assert_int_equal(stat(p.doorbell_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	umask(before);
	plane_stop(&p);
}

static void make_stale_socket(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	must(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	close(fd);
}

static void socket_files_of_a_dead_agent_are_replaced(void **state)
{
	struct plane p;
	int fd;

	(void)state;
	plane_init(&p);
	make_stale_socket(p.control_path);
	make_stale_socket(p.doorbell_path);
	plane_start(&p);
	fd = peer_open(&p);
	assert_int_equal(peer_op(fd, RSHM_CONTROL_PING), RSHM_OK);
	close(fd);
	plane_stop(&p);
}

/* Start must fail with a text that names `word`. */
static void expect_no_start(struct plane *p, const char *word)
{
	assert_true(plane_try_start(p) < 0);
	if (strstr(p->error, word) == NULL)
		fail_msg("\"%s\" does not speak of %s", p->error, word);
}

static void file_that_is_no_socket_is_left_alone(void **state)
{
	struct plane p;
	int fd;

	(void)state;
	for (int which = 0; which < 2; which++) {
		plane_init(&p);
		fd = open(which ? p.control_path : p.doorbell_path, O_CREAT | O_WRONLY, 0600);
		must(fd >= 0);
		close(fd);
		expect_no_start(&p, "no socket");
		assert_int_equal(unlink(which ? p.control_path : p.doorbell_path), 0);
		plane_join(&p);
	}
}

static void path_of_108_bytes_is_refused_and_107_serve(void **state)
{
	char path[200];
	struct plane p;
	int fd;

	(void)state;
	for (size_t length = 107; length <= 108; length++) {
		plane_init(&p);
		snprintf(path, sizeof(path), "%s/%0100d", p.folder, 0);
		path[length] = '\0';
		p.options.control_path = path;
		if (length == 108) {
			expect_no_start(&p, "at most 107 bytes");
			plane_join(&p);
			continue;
		}
		plane_start(&p);
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		close(fd);
		assert_int_equal(access(path, F_OK), 0);
		plane_stop(&p);
	}
}

static void missing_folder_fails_with_its_path_and_leaves_nothing(void **state)
{
	struct plane p;

	(void)state;
	plane_init(&p);
	p.options.control_path = "/tmp/riptide-no-such-folder/control.sock";
	expect_no_start(&p, "/tmp/riptide-no-such-folder/control.sock");
	plane_join(&p);
	plane_init(&p);
	p.options.doorbell_path = "/tmp/riptide-no-such-folder/doorbell.sock";
	expect_no_start(&p, "No such file or directory");
	plane_join(&p);
}

static void limit_of_zero_is_refused(void **state)
{
	struct plane p;

	(void)state;
	plane_init(&p);
	p.options.clients = 0;
	expect_no_start(&p, "limit");
	plane_join(&p);
}

static void close_while_requests_and_handshakes_are_under_way(void **state)
{
	unsigned char message[1024], ticket[16], head[13];
	size_t length = attach_message(message, sizeof(message), 4, &good_words);
	struct plane p;
	int fds[40];

	(void)state;
	plane_init(&p);
	p.answer_after_close = true;
	plane_start(&p);
	/* A ticket that nobody shows, a doorbell connection that shows half of one. */
	fds[0] = peer_open(&p);
	assert_int_equal(peer_attach(fds[0], &good_words, ticket), RSHM_OK);
	fds[1] = peer_connect(p.doorbell_path);
	assert_true(peer_send(fds[1], ticket, 8));
	plane_script(&p, SCRIPT_NEVER);
	for (int i = 2; i < 40; i++) {
		fds[i] = i % 4 ? peer_open(&p) : peer_connect(p.control_path);
		if (i % 4 == 1)
			assert_true(peer_send_frame(fds[i], 1, message, length));
		if (i % 4 == 2)
			assert_true(peer_send(fds[i], head, frame_head(head, 1, 5000)));
	}
	while (plane_figures(&p).requests < 1 + 9)
		sleep_ms(1);
	p.descriptors_before += 40; /* ours, still open */
	plane_stop(&p);
	for (int i = 0; i < 40; i++) {
		assert_true(peer_is_closed_within(fds[i], 1000));
		close(fds[i]);
	}
	assert_int_equal(p.seen.connected, 0);
	assert_int_equal(p.seen.released, 10);
}

static void plane_opens_and_closes_fifty_times(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++) {
		struct plane p;
		int fd;

		plane_init(&p);
		plane_start(&p);
		fd = i % 2 ? peer_open(&p) : peer_connect(p.control_path);
		if (i % 3)
			close(fd);
		plane_do(&p, job_close, NULL);
		if (i % 3 == 0)
			close(fd);
		plane_join(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ping_and_detach_are_answered),
		cmocka_unit_test(reports_and_reload_answer_what_the_hooks_say),
		cmocka_unit_test(reload_is_for_root_and_the_agents_own_user),
		cmocka_unit_test(the_audit_log_is_for_root_and_the_agents_own_user),
		cmocka_unit_test(answer_above_its_limit_is_refused_with_its_size),
		cmocka_unit_test(what_is_asked_about_dictionaries_reaches_the_hook_checked),
		cmocka_unit_test(dictionaries_are_for_root_and_the_agents_own_user),
		cmocka_unit_test(unknown_operation_is_unsupported),
		cmocka_unit_test(undecodable_message_is_answered_if_it_has_a_header),
		cmocka_unit_test(requests_sent_at_once_are_answered_one_after_the_other),
		cmocka_unit_test(hook_that_never_answers_is_answered_for_at_the_deadline),
		cmocka_unit_test(hooks_that_never_answer_cost_a_bounded_number_of_requests),
		cmocka_unit_test(late_answer_within_the_deadline_arrives),
		cmocka_unit_test(req_socket_of_libnng_is_served),
		cmocka_unit_test(req_socket_of_libnng_receives_a_large_answer),
		cmocka_unit_test(sixteen_req_sockets_are_served_in_parallel),
		cmocka_unit_test(sockets_get_their_mode_whatever_the_umask),
		cmocka_unit_test(socket_files_of_a_dead_agent_are_replaced),
		cmocka_unit_test(file_that_is_no_socket_is_left_alone),
		cmocka_unit_test(path_of_108_bytes_is_refused_and_107_serve),
		cmocka_unit_test(missing_folder_fails_with_its_path_and_leaves_nothing),
		cmocka_unit_test(limit_of_zero_is_refused),
		cmocka_unit_test(close_while_requests_and_handshakes_are_under_way),
		cmocka_unit_test(plane_opens_and_closes_fifty_times),
	};

	return cmocka_run_group_tests(tests, group_setup, NULL);
}
