/*
 * terminal.c - the terminal while top has it, without a library.
 *
 * What must never happen is a terminal left without echo. So: signals that end the process are only noted, and looked at by
 * terminal_wait(), which alone lets them in (ppoll); those that kill at once (a fault, an abort) have a handler that restores
 * the terminal with async-signal-safe calls and lets the signal do its work.
 */
#include "client-lib/ctl/top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const char enter[] = "\033[?1049h\033[?25l";
static const char leave[] = "\033[?25h\033[?1049l";

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static const int faults[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
static const int others[] = {SIGTSTP, SIGCONT, SIGWINCH};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static struct termios original, ours;
static volatile sig_atomic_t taken, end_signal, stop_wanted, drawing_wanted;
static sigset_t outside; /* the mask before setup */

/* Nothing can be done about a terminal that does not take it. */
static void say(const char *text, size_t length)
{
	ssize_t n = write(STDOUT_FILENO, text, length);

	(void)n;
}

static void take_over(void)
{
	taken = 1;
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &ours);
	say(enter, sizeof(enter) - 1);
}

static void give_back(void)
{
	if (!taken)
		return;
	taken = 0;
	say(leave, sizeof(leave) - 1);
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &original);
}

static void note_signal(int number)
{
	if (number == SIGTSTP)
		stop_wanted = 1;
	else if (number == SIGCONT || number == SIGWINCH)
		drawing_wanted = 1;
	else
		end_signal = number;
}

static void die_of_fault(int number)
{
	give_back();
	/* SA_RESETHAND: now it does what it does. */
	raise(number);
}

static void catch_signals(const int *numbers, size_t count, void (*handler)(int), int flags, sigset_t *blocked)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};

	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < count; i++) {
		sigaction(numbers[i], &action, NULL);
		if (blocked)
			sigaddset(blocked, numbers[i]);
	}
}

int terminal_setup(void)
{
	sigset_t blocked;

	if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &original) < 0)
		return CTL_ERROR;
	ours = original;
	ours.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	ours.c_cc[VMIN] = 1;
	ours.c_cc[VTIME] = 0;
	sigemptyset(&blocked);
	catch_signals(ending, LENGTH(ending), note_signal, 0, &blocked);
	catch_signals(others, LENGTH(others), note_signal, 0, &blocked);
	catch_signals(faults, LENGTH(faults), die_of_fault, SA_RESETHAND, NULL);
	sigprocmask(SIG_BLOCK, &blocked, &outside);
	take_over();
	return CTL_OK;
}

void terminal_teardown(void)
{
	give_back();
	catch_signals(ending, LENGTH(ending), SIG_DFL, 0, NULL);
	catch_signals(others, LENGTH(others), SIG_DFL, 0, NULL);
	catch_signals(faults, LENGTH(faults), SIG_DFL, 0, NULL);
	sigprocmask(SIG_SETMASK, &outside, NULL);
}

void terminal_size(unsigned int *ret_lines, unsigned int *ret_columns)
{
	struct winsize size = {.ws_row = 0};

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0)
		size = (struct winsize){.ws_row = 24, .ws_col = 80};
	*ret_lines = size.ws_row;
	*ret_columns = size.ws_col;
}

static void stop(void)
{
	stop_wanted = 0;
	give_back();
	raise(SIGSTOP);
	take_over();
	drawing_wanted = 1;
}

int terminal_wait(uint64_t wait_ms, int *ret_signal)
{
	struct timespec span = {.tv_sec = (time_t)(wait_ms / 1000), .tv_nsec = (long)(wait_ms % 1000) * 1000000};
	struct pollfd entry = {.fd = STDIN_FILENO, .events = POLLIN};
	int n = ppoll(&entry, 1, &span, &outside);
	char key;

	*ret_signal = end_signal;
	if (end_signal)
		return -1;
	if (stop_wanted)
		stop();
	if (drawing_wanted) {
		/* Somebody else may have had the terminal meanwhile. */
		drawing_wanted = 0;
		take_over();
		return 0;
	}
	if (n <= 0)
		return 0;
	return read(STDIN_FILENO, &key, 1) == 1 ? (unsigned char)key : -1;
}
