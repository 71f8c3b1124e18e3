/*
 * config_url.h - the form of backend URLs, and how they are shown without their secrets.
 *
 *	redis://[[user]:password@]host[:port][/db]     unix:///path/to/socket[?db=n], also unix://[user:password@]/path
 *	redis+cluster://[[user]:password@]host[:port][,host[:port]...]
 *	redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/master[/db]
 *
 * Both functions: any thread, never block.
 */
#ifndef RIPTIDE_CONFIG_URL_H
#define RIPTIDE_CONFIG_URL_H

#include "agent/base/text.h"

/* NULL if `url` is well-formed, else what is wrong, as a static text that repeats nothing of the URL. */
const char *config_url_fault(const char *url);

/* Appends the URL with everything between its scheme and the last '@' of its authority shown as "***". */
void config_url_mask(const char *url, struct text *text);

#endif
