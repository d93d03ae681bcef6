/* What the x86-64 kernels share: the key schedule of AES-128 with AES-NI, and aligned memory. */
#ifndef CLOISTER_AESNI_H
#define CLOISTER_AESNI_H

#include "linear.h"

#include <immintrin.h>
#include <stdlib.h>

#define AESNI __attribute__((target("aes,sse4.1")))

AESNI static inline __m128i next_round_key(__m128i key, __m128i assisted)
{
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, _mm_shuffle_epi32(assisted, 0xff));
}

AESNI static inline void expand_key(const uint8_t *seed, __m128i schedule[AES_ROUND_KEYS])
{
    __m128i key = _mm_loadu_si128((const __m128i *)seed);
    schedule[0] = key;
#define ROUND(index, constant) \
    schedule[index] = key = next_round_key(key, _mm_aeskeygenassist_si128(key, constant))
    ROUND(1, 0x01);
    ROUND(2, 0x02);
    ROUND(3, 0x04);
    ROUND(4, 0x08);
    ROUND(5, 0x10);
    ROUND(6, 0x20);
    ROUND(7, 0x40);
    ROUND(8, 0x80);
    ROUND(9, 0x1b);
    ROUND(10, 0x36);
#undef ROUND
}

/* Memory for whole vectors, or NULL. */
static inline void *allocate(size_t bytes)
{
    enum { VECTOR_BYTES = 64 };
    return aligned_alloc(VECTOR_BYTES, (bytes + VECTOR_BYTES - 1) / VECTOR_BYTES * VECTOR_BYTES);
}

#endif
