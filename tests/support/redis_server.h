/*
 * redis_server.h - a real redis-server for a test: in a folder of its own, on a unix socket, nothing saved.
 *
 * Blocks until the server answers. The server dies with the test; redis_server_stop() leaves nothing behind. Return 0, or
 * -1 after a line on stderr.
 */
#ifndef TESTS_SUPPORT_REDIS_SERVER_H
#define TESTS_SUPPORT_REDIS_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define REDIS_SERVER_ARGS_MAX 48u

struct redis_server {
	pid_t pid;       /* 0: not running */
	uint16_t port;   /* on 127.0.0.1; 0: none */
	char folder[64]; /* of mkdtemp; also holds redis.log */
	char unix_path[108];
	char *args[REDIS_SERVER_ARGS_MAX]; /* of execvp, NULL-terminated; owned */
};

/* Whether there is a redis-server to run. */
bool redis_server_is_installed(void);

/*
 * Starts a server on a unix socket. Further arguments as on its command line, each a string of its own, end with NULL:
 * redis_server_start(&server, "--maxmemory", "10mb", NULL).
 */
__attribute__((sentinel)) int redis_server_start(struct redis_server *server, ...);
/* The same, and also on an ephemeral port of 127.0.0.1. */
__attribute__((sentinel)) int redis_server_start_tcp(struct redis_server *server, ...);
/* Makes folder, socket path and arguments, and starts nothing: for a server that comes later, by redis_server_restart(). */
int redis_server_prepare(struct redis_server *server);
/* The same with the folder in `parent`, of at most 32 characters. */
int redis_server_prepare_in(struct redis_server *server, const char *parent);

/* A TCP port of 127.0.0.1 that was free a moment ago; 0 if none can be had. */
uint16_t redis_server_free_port(void);

/* SIGKILL, waited for. Folder, port and arguments stay. */
void redis_server_kill(struct redis_server *server);
/* The same server once more, without its data. */
int redis_server_restart(struct redis_server *server);
void redis_server_pause(struct redis_server *server);
void redis_server_resume(struct redis_server *server);

/* Ends it and removes its folder; an unused (zeroed) or stopped one is fine. */
void redis_server_stop(struct redis_server *server);

#endif
