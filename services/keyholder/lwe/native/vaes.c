/* VAES and AVX-512: four blocks of keystream an instruction, eight words a sum. */
#if defined(__x86_64__)

#include "kernel.h"
#include "schedule.h"

#define VAES __attribute__((target("aes,sse4.1,avx2,avx512f,avx512dq,avx512bw,vaes")))

enum { BLOCKS_A_VECTOR = 4, SIDE_BY_SIDE = 8, LANES = 8, SUMS = 4 };

VAES static void expand(const uint8_t seed[LWE_SEED_BYTES], uint64_t first, size_t count,
                        uint8_t *keystream)
{
    const __m512i step = _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0);
    __m128i narrow[ROUND_KEYS];
    __m512i keys[ROUND_KEYS];
    expand_key(seed, narrow);
    for (int round = 0; round < ROUND_KEYS; round++)
        keys[round] = _mm512_broadcast_i32x4(narrow[round]);
    for (size_t block = 0; block < count; block += SIDE_BY_SIDE * BLOCKS_A_VECTOR) {
        __m512i states[SIDE_BY_SIDE];
        for (int s = 0; s < SIDE_BY_SIDE; s++) {
            uint64_t number = first + block + (uint64_t)(s * BLOCKS_A_VECTOR);
            __m512i same = _mm512_maskz_set1_epi64(0x55, (long long)number);
            states[s] = _mm512_xor_si512(_mm512_add_epi64(same, step), keys[0]);
        }
        for (int round = 1; round < ROUND_KEYS - 1; round++)
            for (int s = 0; s < SIDE_BY_SIDE; s++)
                states[s] = _mm512_aesenc_epi128(states[s], keys[round]);
        for (int s = 0; s < SIDE_BY_SIDE; s++)
            _mm512_store_si512((__m512i *)(keystream + block * BLOCK_BYTES) + s,
                               _mm512_aesenclast_epi128(states[s], keys[ROUND_KEYS - 1]));
    }
}

VAES static uint64_t product(const uint8_t *words, const lwe_key_word *key, size_t count)
{
    __m512i sums[SUMS] = {0};
    size_t k = 0;
    for (; k + SUMS * LANES <= count; k += SUMS * LANES)
        for (int s = 0; s < SUMS; s++) {
            __m512i word = _mm512_loadu_si512(words + (k + (size_t)s * LANES) * sizeof *key);
            __m512i bits = _mm512_loadu_si512(key + k + (size_t)s * LANES);
            sums[s] = _mm512_add_epi64(sums[s], _mm512_and_si512(word, bits));
        }
    __m512i sum = _mm512_add_epi64(_mm512_add_epi64(sums[0], sums[1]),
                                   _mm512_add_epi64(sums[2], sums[3]));
    uint64_t lanes[LANES], total = masked_sum(words + k * sizeof *key, key + k, count - k);
    _mm512_storeu_si512(lanes, sum);
    for (int lane = 0; lane < LANES; lane++)
        total += lanes[lane];
    return total;
}

const lwe_kernel *lwe_vaes(void)
{
    static const lwe_kernel kernel = {"vaes", expand, product};
    int supported = __builtin_cpu_supports("aes") && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("vaes");
    return supported ? &kernel : NULL;
}

#else
typedef int nothing_for_this_processor;
#endif
