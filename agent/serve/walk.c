#include "agent/serve/walk.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "shm/msg.h"

#define PAGE_MS 10000u /* a page may take */

static void page_on_listed(struct store_request *request);

static void finish(struct walk *walk)
{
	unsigned char *keys = walk->keys;

	/* The last item has not left its turn yet, and who enters in `done` is compared with its key. */
	walk->keys = NULL;
	walk->done(walk, walk->status);
	free(keys);
}

static void ask_page(struct walk *walk)
{
	struct store_request *page = &walk->page;
	size_t cursor_len = page->cursor_len;
	unsigned char cursor[STORE_CURSOR_MAX];
	uint64_t now_ms = clock_monotonic_ms();

	if (now_ms >= walk->deadline_ms) {
		walk->status = RSHM_E_TIMEDOUT;
		finish(walk);
		return;
	}
	memcpy(cursor, page->cursor, cursor_len);
	*page = (struct store_request){
		.op = STORE_LIST,
		.name = walk->name,
		.page_keys = WALK_PAGE_KEYS,
		.deadline_ms = walk->deadline_ms < now_ms + PAGE_MS ? walk->deadline_ms : now_ms + PAGE_MS,
		.done = page_on_listed,
		.context = walk,
		.cursor_len = cursor_len,
	};
	memcpy(page->cursor, cursor, cursor_len);
	store_submit(walk->store, page);
}

/* Starts what the window has room for. Items may end before `each` returns: `running` keeps this a loop. */
static void start_items(struct walk *walk)
{
	walk->running = true;
	while (walk->status == RSHM_OK && walk->at < walk->keys_len && walk->under_way < WALK_PAGE_KEYS) {
		const unsigned char *key = walk->keys + walk->at;
		uint16_t length;

		memcpy(&length, key, sizeof(length));
		walk->at += sizeof(length) + length;
		walk->under_way++;
		walk->each(walk, key + sizeof(length), length);
	}
	walk->running = false;
	if (walk->under_way > 0)
		return;
	if (walk->status < 0 || walk->page.cursor_len == 0)
		finish(walk);
	else
		ask_page(walk);
}

void walk_item_done(struct walk *walk, int status)
{
	walk->under_way--;
	if (status < 0 && walk->status == RSHM_OK)
		walk->status = status;
	if (!walk->running)
		start_items(walk);
}

static void page_on_listed(struct store_request *request)
{
	struct walk *walk = request->context;

	free(walk->keys);
	walk->keys = NULL;
	walk->keys_len = walk->at = 0;
	walk->status = request->status;
	if (walk->status == RSHM_OK && request->result_len > 0) {
		walk->keys = malloc(request->result_len);
		if (walk->keys) {
			memcpy(walk->keys, request->result, request->result_len);
			walk->keys_len = request->result_len;
		} else {
			walk->status = RSHM_E_NOMEM;
		}
	}
	start_items(walk);
}

void walk_start(struct walk *walk)
{
	ask_page(walk);
}
