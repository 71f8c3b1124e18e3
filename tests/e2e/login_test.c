/*
 * login_test.c - a Redis that does not let everybody in: wrong passwords, users who may do little, and a port that speaks TLS.
 * Status and log say what is wrong, and never the password.
 */
#include "tests/e2e/limited_redis.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- users with less ------------------------------------------------------------------------------------------ */

static void a_wrong_password_is_told_and_kept(void **state)
{
	struct fixture *f = fixture_of(state);
	char url[128], user[] = "ACL SETUSER someone reset on >right ~* &* +@all";

	create_user(f, user);
	url_of(f, "someone:" PASSWORD "@", url);
	start_agents(f, url, "coherence.mode=auto", false);
	assert_int_equal(e2e_put(f->on_a, "k", "v"), RIPTIDE_EBACKEND);
	assert_int_equal(e2e_check(f->on_a, "k", "v", NULL), RIPTIDE_EBACKEND);
	assert_detail(&f->a, "the server refused user or password of the URL");
	assert_int_equal(agent_process_log_has(&f->a, "the server refused user or password of the URL"), 1);
	assert_secret_kept(&f->a);
	/* And is right as soon as the server says so. */
	freeReplyObject(admin(f, "ACL SETUSER someone >" PASSWORD));
	expect_recovery(f->on_a);
	assert_mode(&f->a, "tracking");
	assert_secret_kept(&f->a);
}

static void a_missing_password_is_told(void **state)
{
	struct fixture *f = fixture_of(state);
	char url[128];

	freeReplyObject(admin(f, "CONFIG SET requirepass " PASSWORD));
	url_of(f, "", url);
	start_agents(f, url, "coherence.mode=auto", false);
	assert_int_equal(e2e_put(f->on_a, "k", "v"), RIPTIDE_EBACKEND);
	assert_detail(&f->a, "the server wants a password, and the URL has none");
}

static void a_user_who_may_not_write_reads(void **state)
{
	struct fixture *f = fixture_of(state);
	char url[128], user[] = "ACL SETUSER reader reset on >change-me ~* &* +@all -@write";

	/* Somebody else wrote it. */
	url_of(f, "", url);
	start_agents(f, url, "coherence.mode=auto", false);
	assert_int_equal(e2e_put(f->on_a, "k", "v"), RIPTIDE_OK);
	create_user(f, user);
	url_of(f, "reader:" PASSWORD "@", url);
	assert_int_equal(start_one(&f->b, url, "coherence.mode=auto"), 0);
	assert_int_equal(e2e_open(&f->b, NULL, 5000, &f->on_b), RIPTIDE_OK);
	assert_int_equal(e2e_await_check(f->on_b, "k", "v", RIPTIDE_OK, PATIENCE_MS), RIPTIDE_OK);
	assert_int_equal(e2e_put(f->on_b, "k", "other"), RIPTIDE_EBACKEND);
	assert_int_equal(riptide_delete(f->on_b, "k", 1), RIPTIDE_EBACKEND);
	assert_int_equal(riptide_touch(f->on_b, "k", 1, 60000), RIPTIDE_EBACKEND);
	assert_int_equal(e2e_check(f->on_a, "k", "v", NULL), RIPTIDE_OK);
	assert_int_equal(agent_process_log_has(&f->b, "NOPERM"), 1);
	/* No canary, no proof: the store ends up in mode ttl, and reads are served on. */
	assert_mode(&f->b, "ttl");
	assert_detail(&f->b, "the server's ACL forbids our canary");
	assert_int_equal(e2e_await_check(f->on_b, "k", "v", RIPTIDE_OK, PATIENCE_MS), RIPTIDE_OK);
	assert_secret_kept(&f->b);
}

static void a_user_of_other_keys_is_told(void **state)
{
	struct fixture *f = fixture_of(state);
	char url[128], user[] = "ACL SETUSER stranger reset on >change-me ~other:* &* +@all";

	create_user(f, user);
	url_of(f, "stranger:" PASSWORD "@", url);
	start_agents(f, url, "coherence.mode=auto", false);
	assert_int_equal(e2e_put(f->on_a, "k", "v"), RIPTIDE_EBACKEND);
	assert_int_equal(e2e_check(f->on_a, "k", "v", NULL), RIPTIDE_EBACKEND);
	assert_int_equal(agent_process_log_has(&f->a, "NOPERM"), 1);
	assert_int_equal(e2e_number(&f->a, "pid"), f->a.pid);
	assert_secret_kept(&f->a);
}

/* ---- TLS ------------------------------------------------------------------------------------------------------ */

/* Runs `riptided -t` with this URL; its words are in `text`. Returns its exit status. */
static int check_configuration(const char *url, char *text, size_t size)
{
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	char command[512];
	size_t length;
	int status;
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "%s/riptided --no-config --set agent.backend=redis --set redis.url=%s -t 2>&1",
		 build ? build : "build", url);
	pipe = popen(command, "re");
	assert_non_null(pipe);
	length = fread(text, 1, size - 1, pipe);
	text[length] = '\0';
	status = pclose(pipe);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void a_url_of_tls_is_refused_in_one_line(void **state)
{
	char text[4096];
	const char *newline;

	(void)state;
	assert_int_equal(check_configuration("redis://127.0.0.1:6379", text, sizeof(text)), 0);
	assert_int_not_equal(check_configuration("rediss://me:" PASSWORD "@127.0.0.1:6380", text, sizeof(text)), 0);
	assert_non_null(strstr(text, "redis.url"));
	assert_non_null(strstr(text, "TLS"));
	assert_null(strstr(text, PASSWORD));
	newline = strchr(text, '\n');
	assert_true(newline != NULL && newline[1] == '\0');
}

/* A server of TLS to which somebody talks in the clear: an alert, and the end. */
static int speak_tls(void *context)
{
	static const unsigned char alert[] = {0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46};
	int listener = *(int *)context;

	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char buffer[512];

		if (fd < 0)
			return 1;
		if (recv(fd, buffer, sizeof(buffer), 0) > 0)
			(void)send(fd, alert, sizeof(alert), MSG_NOSIGNAL);
		close(fd);
	}
}

static void a_port_that_speaks_tls_is_told(void **state)
{
	struct fixture *f = fixture_of(state);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char url[128];
	pid_t pid;

	assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
	assert_int_equal(listen(listener, 16), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	pid = e2e_fork(speak_tls, &listener);
	close(listener);
	assert_true(pid > 0);
	snprintf(url, sizeof(url), "redis.url=redis://127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
	start_agents(f, url, "coherence.mode=auto", false);
	assert_int_equal(e2e_put(f->on_a, "k", "v"), RIPTIDE_EAGAIN);
	assert_int_equal(e2e_check(f->on_a, "k", "v", NULL), RIPTIDE_EAGAIN);
	assert_int_equal(e2e_number(&f->a, "backend.ready"), 0);
	assert_detail(&f->a, "speaks TLS");
	assert_int_equal(e2e_number(&f->a, "pid"), f->a.pid);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(a_wrong_password_is_told_and_kept),
		CASE(a_missing_password_is_told),
		CASE(a_user_who_may_not_write_reads),
		CASE(a_user_of_other_keys_is_told),
		cmocka_unit_test(a_url_of_tls_is_refused_in_one_line),
		CASE(a_port_that_speaks_tls_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
