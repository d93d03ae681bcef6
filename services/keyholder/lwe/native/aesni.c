/* AES-NI: eight blocks of keystream side by side, which hides the latency of a round. */
#if defined(__x86_64__)

#include "kernel.h"
#include "schedule.h"

#define AESNI __attribute__((target("aes,sse4.1")))

enum { SIDE_BY_SIDE = 8 };

AESNI static void expand(const uint8_t seed[LWE_SEED_BYTES], uint64_t first, size_t count,
                         uint8_t *keystream)
{
    __m128i keys[ROUND_KEYS];
    expand_key(seed, keys);
    for (size_t block = 0; block < count; block += SIDE_BY_SIDE) {
        __m128i states[SIDE_BY_SIDE];
        for (int s = 0; s < SIDE_BY_SIDE; s++)
            states[s] =
                _mm_xor_si128(_mm_set_epi64x(0, (long long)(first + block + (size_t)s)), keys[0]);
        for (int round = 1; round < ROUND_KEYS - 1; round++)
            for (int s = 0; s < SIDE_BY_SIDE; s++)
                states[s] = _mm_aesenc_si128(states[s], keys[round]);
        for (int s = 0; s < SIDE_BY_SIDE; s++)
            _mm_store_si128((__m128i *)(keystream + (block + (size_t)s) * BLOCK_BYTES),
                            _mm_aesenclast_si128(states[s], keys[ROUND_KEYS - 1]));
    }
}

AESNI static uint64_t product(const uint8_t *words, const lwe_key_word *key, size_t count)
{
    return masked_sum(words, key, count);
}

const lwe_kernel *lwe_aesni(void)
{
    static const lwe_kernel kernel = {"aesni", expand, product};
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1") ? &kernel : NULL;
}

#else
typedef int nothing_for_this_processor;
#endif
