/*
 * lifecycle.h - run directory, instance lock, and the word to the service manager. Main thread.
 */
#ifndef RIPTIDE_LIFECYCLE_H
#define RIPTIDE_LIFECYCLE_H

#include <stddef.h>

/*
 * Makes `dir` (0755, parents must exist) if it is absent, and checks that it is a folder of this user that no other may
 * write to. RSHM_E_SYSTEM or RSHM_E_DENIED with a one-line text.
 */
int lifecycle_prepare_dir(const char *dir, char *error, size_t error_len);

/*
 * Takes the instance lock <run dir>/lock (mode 0600, OFD write lock, held until the process ends). RSHM_E_AGAIN: another
 * agent of this instance runs; the text names its pid. *ret_fd must stay open.
 */
int lifecycle_lock(const char *run_dir, int *ret_fd, char *error, size_t error_len);

/* sd_notify; without a service manager nothing happens. */
void lifecycle_notify_ready(const char *status);
void lifecycle_notify_reloading(void);
void lifecycle_notify_stopping(void);
void lifecycle_notify_watchdog(void);

#endif
