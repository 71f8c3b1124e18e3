/*
 * cache_aside.c - the pattern to copy: pre-forked workers that serve files through one shared cache.
 *
 *	cc cache_aside.c $(pkg-config --cflags --libs riptide) -o cache_aside
 *	./cache_aside /usr/share/common-licenses 4
 *
 * The parent opens the handle and forks; each worker goes on using it and attaches by itself at its first call. A hit is
 * a copy out of shared memory. A miss reads the file and sets it, and from then on every worker hits.
 */
#include <dirent.h>
#include <riptide/riptide.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define DOCUMENT_MAX (1u << 20)
#define DOCUMENTS_MAX 256u
#define REQUESTS 100000u

/* What the application would do without a cache. */
static size_t load_document(const char *path, char *buffer)
{
	FILE *file = fopen(path, "rb");
	size_t length = file ? fread(buffer, 1, DOCUMENT_MAX, file) : 0;

	if (file)
		fclose(file);
	return length;
}

/* The whole of cache-aside. An error of the cache is no error of the application: it loads the document itself. */
static size_t get_document(riptide *cache, const char *path, char *buffer, unsigned long *hits)
{
	struct riptide_set_options options = {.size = sizeof(options), .ttl_ms = 3600 * 1000};
	size_t length;

	if (riptide_get_into(cache, path, strlen(path), buffer, DOCUMENT_MAX, &length, NULL) == RIPTIDE_OK) {
		++*hits;
		return length;
	}
	length = load_document(path, buffer);
	(void)riptide_set(cache, path, strlen(path), buffer, length, &options, NULL);
	return length;
}

static int serve(riptide *cache, char **paths, unsigned int count, unsigned int worker)
{
	char *buffer = malloc(DOCUMENT_MAX);
	unsigned long hits = 0, bytes = 0;

	if (!buffer)
		return 1;
	for (unsigned int i = 0; i < REQUESTS; i++)
		bytes += get_document(cache, paths[(i * 7919u + worker) % count], buffer, &hits);
	printf("worker %u: %u requests, %lu hits, %lu MB served\n", worker, REQUESTS, hits, bytes / 1000000);
	free(buffer);
	return 0;
}

static unsigned int list_files(const char *folder, char **paths)
{
	DIR *directory = opendir(folder);
	unsigned int count = 0;

	for (struct dirent *e; directory && count < DOCUMENTS_MAX && (e = readdir(directory));) {
		size_t room = strlen(folder) + strlen(e->d_name) + 2;
		char *path = e->d_name[0] == '.' ? NULL : malloc(room);

		if (!path)
			continue;
		snprintf(path, room, "%s/%s", folder, e->d_name);
		paths[count++] = path;
	}
	if (directory)
		closedir(directory);
	return count;
}

int main(int argc, char **argv)
{
	static char *paths[DOCUMENTS_MAX];
	unsigned int count = list_files(argc > 1 ? argv[1] : "/usr/share/common-licenses", paths);
	unsigned int workers = argc > 2 ? (unsigned int)atoi(argv[2]) : 4;
	riptide *cache;
	int status = riptide_open(NULL, &cache), failed = 0;

	if (status < 0) {
		char text[256];

		riptide_last_error(cache, text, sizeof(text));
		fprintf(stderr, "cache_aside: %s: %s\n", riptide_strerror(status), text);
		riptide_close(&cache);
		return 1;
	}
	fflush(stdout);
	for (unsigned int w = 0; count > 0 && w < workers; w++)
		if (fork() == 0)
			exit(serve(cache, paths, count, w));
	for (int code; wait(&code) > 0;)
		failed |= code != 0;
	for (unsigned int i = 0; i < count; i++)
		free(paths[i]);
	riptide_close(&cache);
	return failed;
}
