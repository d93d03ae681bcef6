/* The AES-128 key schedule by AES-NI, for the kernels that have it. */
#ifndef CLOISTER_LWE_SCHEDULE_H
#define CLOISTER_LWE_SCHEDULE_H

#include "kernel.h"

#include <immintrin.h>

/* FIPS 197, 5.2: every word of a round key is added to the next, and to all the substituted last
 * word of the one before. */
__attribute__((target("aes"))) static inline __m128i next_key(__m128i key, __m128i assist)
{
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, _mm_shuffle_epi32(assist, 0xff));
}

/* The instruction takes the round's constant, x^(round - 1) in the field, as part of itself. */
__attribute__((target("aes"))) static inline void expand_key(const uint8_t seed[LWE_SEED_BYTES],
                                                              __m128i keys[ROUND_KEYS])
{
    keys[0] = _mm_loadu_si128((const __m128i *)seed);
    keys[1] = next_key(keys[0], _mm_aeskeygenassist_si128(keys[0], 0x01));
    keys[2] = next_key(keys[1], _mm_aeskeygenassist_si128(keys[1], 0x02));
    keys[3] = next_key(keys[2], _mm_aeskeygenassist_si128(keys[2], 0x04));
    keys[4] = next_key(keys[3], _mm_aeskeygenassist_si128(keys[3], 0x08));
    keys[5] = next_key(keys[4], _mm_aeskeygenassist_si128(keys[4], 0x10));
    keys[6] = next_key(keys[5], _mm_aeskeygenassist_si128(keys[5], 0x20));
    keys[7] = next_key(keys[6], _mm_aeskeygenassist_si128(keys[6], 0x40));
    keys[8] = next_key(keys[7], _mm_aeskeygenassist_si128(keys[7], 0x80));
    keys[9] = next_key(keys[8], _mm_aeskeygenassist_si128(keys[8], 0x1b));
    keys[10] = next_key(keys[9], _mm_aeskeygenassist_si128(keys[9], 0x36));
}

#endif
