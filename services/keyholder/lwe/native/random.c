#if defined(__linux__)
#define _GNU_SOURCE
#include <sys/random.h>
#else
#include <sys/random.h>
#include <unistd.h>
#endif

#include "lwe.h"
#include "random.h"

#include <errno.h>
#include <stdint.h>

int random_fill(void *buffer, size_t bytes)
{
    uint8_t *at = buffer;
    size_t left = bytes;
    while (left) {
#if defined(__linux__)
        ssize_t got = getrandom(at, left, 0);
        if (got < 0 && errno == EINTR)
            continue;
#else
        /* Gives all that is asked for, at most 256 bytes, or fails. */
        size_t asked = left < 256 ? left : 256;
        long got = getentropy(at, asked) ? -1 : (long)asked;
#endif
        if (got <= 0) {
            int error = got < 0 ? errno : EIO;
            lwe_wipe(buffer, bytes);
            errno = error;
            return -1;
        }
        at += got;
        left -= (size_t)got;
    }
    return 0;
}
