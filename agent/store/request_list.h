/*
 * request_list.h - requests that wait in a store, oldest first.
 *
 * Linked by their own `next` and `prev`, so a request is in one list at most, and nothing is allocated. Zeroed it is empty.
 * Whoever has the list calls, under whatever protects it; never block.
 */
#ifndef RIPTIDE_STORE_REQUEST_LIST_H
#define RIPTIDE_STORE_REQUEST_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "agent/store/store.h"

struct request_list {
	struct store_request *first, *last;
	uint32_t count;
};

static inline void request_list_append(struct request_list *list, struct store_request *request)
{
	request->next = NULL;
	request->prev = list->last;
	*(list->last != NULL ? &list->last->next : &list->first) = request;
	list->last = request;
	list->count++;
}

/* It is in this list. */
static inline void request_list_remove(struct request_list *list, struct store_request *request)
{
	*(request->prev != NULL ? &request->prev->next : &list->first) = request->next;
	*(request->next != NULL ? &request->next->prev : &list->last) = request->prev;
	list->count--;
}

#endif
