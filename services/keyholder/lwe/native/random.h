/* Randomness of the operating system. */
#ifndef CLOISTER_LWE_RANDOM_H
#define CLOISTER_LWE_RANDOM_H

#include <stddef.h>

/* Fill a buffer. Returns 0, or -1 with errno set and the buffer wiped: nothing may be encrypted. */
int random_fill(void *buffer, size_t bytes);

#endif
