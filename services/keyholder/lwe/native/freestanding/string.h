/* What the core takes of C's library, where there is none: compilers bring these themselves. */
#ifndef CLOISTER_LWE_STRING_H
#define CLOISTER_LWE_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);

#endif
