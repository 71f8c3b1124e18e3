/*
 * top.c - live figures: on a screen of its own, or frame below frame.
 *
 * Once attached it reads shared memory only, so it works while the agent hangs; that the agent hangs is what it then says. When
 * the object is retired, or the agent shows no life and another object is listed, it attaches anew, and waits for an agent
 * if there is none: an operator who watches a restart does not want his screen to go away.
 */
#include "client-lib/ctl/top.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_MS 1000u

struct top {
	const struct ctl *ctl;
	struct top_agent agent;
	struct top_sample sample;
	struct top_view view;
	uint32_t interval_ms;
};

/* A new sample, or the old one marked as of a gone agent. CTL_OK unless there was no memory. */
static int refresh(struct top *top)
{
	struct top_sample fresh;
	char trouble[512];
	int status;

	if (top->agent.map.base && top_is_replaced(&top->agent, top->ctl->socket)) {
		struct top_agent next = {.map.base = NULL};

		/* A retired object without a successor stays on show. */
		if (top_attach(&next, top->ctl->socket, trouble, sizeof(trouble)) == CTL_OK) {
			top_detach(&top->agent);
			top->agent = next;
			top_sample_fini(&top->sample);
		} else {
			top->sample.attached = false;
			top->sample.now_ms = rshm_now_ms();
			return CTL_OK;
		}
	}
	status = top_sample_take(&top->agent, &top->sample, &fresh);
	if (status != CTL_OK)
		return status;
	top_sample_fini(&top->sample);
	top->sample = fresh;
	return CTL_OK;
}

static void pause_ms(uint32_t ms)
{
	struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&span, NULL);
}

/* Frame below frame, for pipes and tests. */
static int run_plain(struct top *top)
{
	int status = CTL_OK;

	for (uint32_t i = 0; status == CTL_OK && (top->ctl->frames == 0 || i < top->ctl->frames); i++) {
		if (i > 0)
			pause_ms(top->interval_ms);
		status = refresh(top);
		if (status != CTL_OK)
			break;
		if (top->ctl->json) {
			status = ctl_print_json(top->ctl, top_json(&top->sample, top->view.sort));
		} else {
			if (i > 0)
				putchar('\n');
			top_frame(&top->sample, &top->view, stdout);
		}
		/* main() says why. */
		if (fflush(stdout) != 0)
			break;
	}
	return status;
}

/* One write per frame, so that it does not flicker. */
static int draw(struct top *top)
{
	char *bytes = NULL;
	size_t length = 0;
	FILE *to = open_memstream(&bytes, &length);

	if (!to)
		return CTL_ERROR;
	terminal_size(&top->view.lines, &top->view.columns);
	fputs("\033[H", to);
	top_frame(&top->sample, &top->view, to);
	if (fclose(to) == 0) {
		fwrite(bytes, 1, length, stdout);
		fflush(stdout);
	}
	free(bytes);
	return ferror(stdout) ? CTL_ERROR : CTL_OK;
}

/* Draws after each key until the interval is over. 0: go on; 1: end. */
static int serve_keys(struct top *top, int *ret_signal)
{
	uint64_t due_ms = rshm_now_ms() + top->interval_ms, now_ms;

	while ((now_ms = rshm_now_ms()) < due_ms) {
		int key = terminal_wait(due_ms - now_ms, ret_signal);

		if (key < 0 || key == 'q')
			return 1;
		if (key && strchr("hmsn", key))
			top->view.sort = (char)key;
		if (draw(top) != CTL_OK)
			return 1;
	}
	return 0;
}

static int run_screen(struct top *top)
{
	int number = 0, status = terminal_setup();

	if (status != CTL_OK)
		return status;
	top->view.screen = true;
	top->view.colour = top->ctl->colour;
	do
		status = refresh(top);
	while (status == CTL_OK && draw(top) == CTL_OK && serve_keys(top, &number) == 0);
	terminal_teardown();
	if (number)
		raise(number);
	return status;
}

int ctl_top(struct ctl *ctl)
{
	struct top top = {
		.ctl = ctl,
		.view = {.sort = ctl->sort},
		.interval_ms = ctl->given & CTL_WATCH ? ctl->watch_ms : INTERVAL_MS,
	};
	char trouble[512];
	int status = top_attach(&top.agent, ctl->socket, trouble, sizeof(trouble));

	if (status != CTL_OK)
		return ctl_fail(status, "%s", trouble);
	status = ctl->frames || ctl->json || !ctl->to_terminal ? run_plain(&top) : run_screen(&top);
	if (status == CTL_ERROR && !ferror(stdout))
		ctl_fail(status, "top ends: no memory, or stdin is no terminal (use top -n COUNT there)");
	top_sample_fini(&top.sample);
	top_detach(&top.agent);
	return status;
}
