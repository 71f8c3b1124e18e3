#include "tests/support/redis_server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SERVER_START_MS 10000
#define SERVER_PORT_TRIES 5

static void sleep_ms(long ms)
{
	struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&pause, NULL);
}

bool redis_server_is_installed(void)
{
	return access("/usr/bin/redis-server", X_OK) == 0 || access("/usr/local/bin/redis-server", X_OK) == 0;
}

static int add_arg(struct redis_server *server, const char *arg)
{
	for (size_t i = 0; i + 1 < REDIS_SERVER_ARGS_MAX; i++) {
		if (server->args[i] != NULL)
			continue;
		server->args[i] = strdup(arg);
		return server->args[i] != NULL ? 0 : -1;
	}
	fprintf(stderr, "redis-server: too many arguments\n");
	return -1;
}

int redis_server_prepare(struct redis_server *server)
{
	return redis_server_prepare_in(server, "/tmp");
}

int redis_server_prepare_in(struct redis_server *server, const char *parent)
{
	static const char *const fixed[] = {"--save", "", "--appendonly", "no", "--daemonize", "no", "--port", "0"};
	char log[96];

	memset(server, 0, sizeof(*server));
	snprintf(server->folder, sizeof(server->folder), "%.32s/riptide-redis-XXXXXX", parent);
	if (mkdtemp(server->folder) == NULL) {
		perror("redis-server: mkdtemp");
		server->folder[0] = '\0';
		return -1;
	}
	snprintf(server->unix_path, sizeof(server->unix_path), "%s/socket", server->folder);
	snprintf(log, sizeof(log), "%s/redis.log", server->folder);
	if (add_arg(server, "redis-server") != 0)
		return -1;
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		if (add_arg(server, fixed[i]) != 0)
			return -1;
	}
	return add_arg(server, "--dir") || add_arg(server, server->folder) || add_arg(server, "--logfile") ||
			       add_arg(server, log) || add_arg(server, "--unixsocket") ||
			       add_arg(server, server->unix_path)
		       ? -1
		       : 0;
}

/* Any answer will do: a server with a password says -NOAUTH. */
static bool answers(const struct redis_server *server)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = false;
	char answer[8];

	if (fd < 0)
		return false;
	memcpy(address.sun_path, server->unix_path, sizeof(address.sun_path));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6)
		ok = recv(fd, answer, sizeof(answer), 0) > 0;
	close(fd);
	return ok;
}

int redis_server_restart(struct redis_server *server)
{
	pid_t parent = getpid(), pid;
	char dump[96];

	/* A replica keeps there what its master sent. */
	snprintf(dump, sizeof(dump), "%s/dump.rdb", server->folder);
	(void)unlink(dump);
	pid = fork();

	if (pid < 0) {
		perror("redis-server: fork");
		return -1;
	}
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent || null < 0)
			_exit(127);
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		execvp(server->args[0], server->args);
		_exit(127);
	}
	server->pid = pid;
	for (long waited = 0; waited < SERVER_START_MS; waited += 5) {
		if (answers(server))
			return 0;
		if (waitpid(pid, NULL, WNOHANG) == pid) {
			fprintf(stderr, "redis-server: ended at once\n");
			server->pid = 0;
			return -1;
		}
		sleep_ms(5);
	}
	fprintf(stderr, "redis-server: does not answer\n");
	redis_server_kill(server);
	return -1;
}

static int add_args(struct redis_server *server, va_list args)
{
	const char *arg;

	while ((arg = va_arg(args, const char *)) != NULL) {
		if (add_arg(server, arg) != 0)
			return -1;
	}
	return 0;
}

int redis_server_start(struct redis_server *server, ...)
{
	va_list args;
	int result = redis_server_prepare(server);

	va_start(args, server);
	if (result == 0)
		result = add_args(server, args);
	va_end(args);
	if (result == 0)
		result = redis_server_restart(server);
	if (result != 0)
		redis_server_stop(server);
	return result;
}

uint16_t redis_server_free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint16_t port = 0;

	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    getsockname(fd, (struct sockaddr *)&address, &length) == 0)
		port = ntohs(address.sin_port);
	if (fd >= 0)
		close(fd);
	return port;
}

int redis_server_start_tcp(struct redis_server *server, ...)
{
	int result = -1;

	/* Somebody else may take the port in between. */
	for (int i = 0; i < SERVER_PORT_TRIES && result != 0; i++) {
		va_list args;
		char port[8];

		if (redis_server_prepare(server) != 0)
			return -1;
		server->port = redis_server_free_port();
		snprintf(port, sizeof(port), "%u", (unsigned)server->port);
		result = add_arg(server, "--bind") || add_arg(server, "127.0.0.1") || add_arg(server, "--port") ||
			 add_arg(server, port);
		va_start(args, server);
		if (result == 0)
			result = add_args(server, args);
		va_end(args);
		if (result == 0)
			result = redis_server_restart(server);
		if (result != 0)
			redis_server_stop(server);
	}
	return result;
}

void redis_server_kill(struct redis_server *server)
{
	if (server->pid <= 0)
		return;
	kill(server->pid, SIGKILL);
	while (waitpid(server->pid, NULL, 0) < 0 && errno == EINTR)
		;
	server->pid = 0;
}

void redis_server_pause(struct redis_server *server)
{
	kill(server->pid, SIGSTOP);
}

void redis_server_resume(struct redis_server *server)
{
	kill(server->pid, SIGCONT);
}

void redis_server_stop(struct redis_server *server)
{
	DIR *folder = server->folder[0] != '\0' ? opendir(server->folder) : NULL;
	struct dirent *entry;

	redis_server_kill(server);
	while (folder != NULL && (entry = readdir(folder)) != NULL)
		(void)unlinkat(dirfd(folder), entry->d_name, 0);
	if (folder != NULL)
		closedir(folder);
	if (server->folder[0] != '\0')
		rmdir(server->folder);
	for (size_t i = 0; i < REDIS_SERVER_ARGS_MAX; i++)
		free(server->args[i]);
	memset(server, 0, sizeof(*server));
}
