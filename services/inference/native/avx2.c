/* AES-NI and AVX2. AVX2 multiplies 32 bits by 32: a word is split into halves, and a weight is
 * raised to be non-negative, which adds the same multiple of every mask's words to each output.
 */
#if defined(__x86_64__)

#include "aesni.h"

#include <stdlib.h>
#include <string.h>

#define AVX2 __attribute__((target("aes,sse4.1,avx2")))

enum {
    LANES = 4,
    GROUP = 2,
    TILE = 256,
    VECTORS = 2,
    AES_BLOCKS = 8,
    /* A block more than the words have: the keystream is read from its second byte on. */
    KEYSTREAM_BYTES = TILE * 8 + AES_BLOCK_BYTES,
};

AVX2 static inline void keystream_blocks(const __m128i schedule[AES_ROUND_KEYS], uint64_t block,
                                         uint8_t *keystream)
{
    __m128i states[AES_BLOCKS];
    for (int b = 0; b < AES_BLOCKS; b++)
        states[b] = _mm_xor_si128(_mm_set_epi64x(0, (long long)(block + b)), schedule[0]);
    for (int round = 1; round < AES_ROUND_KEYS - 1; round++)
        for (int b = 0; b < AES_BLOCKS; b++)
            states[b] = _mm_aesenc_si128(states[b], schedule[round]);
    for (int b = 0; b < AES_BLOCKS; b++)
        _mm_storeu_si128((__m128i *)keystream + b,
                         _mm_aesenclast_si128(states[b], schedule[AES_ROUND_KEYS - 1]));
}

/* The keystream of n_blocks blocks from `block` on, rounded up to whole batches, and the block
 * after them. */
AVX2 static inline void expand(const __m128i schedule[AES_ROUND_KEYS], uint64_t block,
                               size_t n_blocks, uint8_t *keystream)
{
    size_t done = 0;
    for (; done < n_blocks; done += AES_BLOCKS)
        keystream_blocks(schedule, block + done, keystream + done * AES_BLOCK_BYTES);
    __m128i last = _mm_xor_si128(_mm_set_epi64x(0, (long long)(block + done)), schedule[0]);
    for (int round = 1; round < AES_ROUND_KEYS - 1; round++)
        last = _mm_aesenc_si128(last, schedule[round]);
    _mm_storeu_si128((__m128i *)(keystream + done * AES_BLOCK_BYTES),
                     _mm_aesenclast_si128(last, schedule[AES_ROUND_KEYS - 1]));
}

/* Add weights * words to the sums, and the words themselves to the sums of row n_outputs. */
AVX2 static inline void multiply(const uint8_t *keystreams, const uint64_t *weights,
                                 size_t n_outputs, size_t n_words, uint64_t *sums)
{
    for (size_t at = 0; at < n_words; at += VECTORS * LANES) {
        __m256i low[GROUP][VECTORS], high[GROUP][VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            __m256i *sum = (__m256i *)(sums + n_outputs * TILE + at) + v;
            __m256i total = _mm256_load_si256(sum);
            for (int g = 0; g < GROUP; g++) {
                low[g][v] = _mm256_loadu_si256(
                    (const __m256i *)(keystreams + g * KEYSTREAM_BYTES + MASK_OFFSET +
                                      (at + v * LANES) * sizeof(uint64_t)));
                high[g][v] = _mm256_srli_epi64(low[g][v], 32);
                total = _mm256_add_epi64(total, low[g][v]);
            }
            _mm256_store_si256(sum, total);
        }
        for (size_t j = 0; j < n_outputs; j++) {
            __m256i *sum = (__m256i *)(sums + j * TILE + at);
            __m256i weight[GROUP];
            for (int g = 0; g < GROUP; g++)
                weight[g] = _mm256_set1_epi64x((long long)weights[g * n_outputs + j]);
            for (int v = 0; v < VECTORS; v++) {
                __m256i lows = _mm256_load_si256(sum + v), highs = _mm256_setzero_si256();
                for (int g = 0; g < GROUP; g++) {
                    lows = _mm256_add_epi64(lows, _mm256_mul_epu32(low[g][v], weight[g]));
                    highs = _mm256_add_epi64(highs, _mm256_mul_epu32(high[g][v], weight[g]));
                }
                _mm256_store_si256(sum + v, _mm256_add_epi64(lows, _mm256_slli_epi64(highs, 32)));
            }
        }
    }
}

AVX2 static void tiles(const linear_circuit *circuit, const __m128i *schedules,
                       const uint64_t *weights, uint8_t *keystreams, uint64_t *sums,
                       uint8_t *result)
{
    size_t n_outputs = circuit->n_outputs, dimension = circuit->dimension;
    size_t n_groups = (circuit->n_features + GROUP - 1) / GROUP;
    for (size_t first = 0; first < dimension; first += TILE) {
        size_t n_words = dimension - first < TILE ? dimension - first : TILE;
        memset(sums, 0, (n_outputs + 1) * TILE * sizeof *sums);
        for (size_t group = 0; group < n_groups; group++) {
            for (size_t g = 0; g < GROUP; g++)
                expand(schedules + (group * GROUP + g) * AES_ROUND_KEYS, first / 2,
                       (n_words + 1) / 2, keystreams + g * KEYSTREAM_BYTES);
            multiply(keystreams, weights + group * GROUP * n_outputs, n_outputs, n_words, sums);
        }
        for (size_t j = 0; j < n_outputs; j++) {
            uint64_t *sum = sums + j * TILE;
            for (size_t k = 0; k < n_words; k++)
                sum[k] -= (uint64_t)WEIGHT_LIMIT * sums[n_outputs * TILE + k];
            memcpy(result + (j * (dimension + 1) + first) * sizeof *sums, sum,
                   n_words * sizeof *sums);
        }
    }
}

AVX2 int linear_avx2(const linear_circuit *circuit, uint8_t *result)
{
    size_t n_features = circuit->n_features, n_outputs = circuit->n_outputs;
    size_t n_padded = (n_features + GROUP - 1) / GROUP * GROUP;
    __m128i *schedules = allocate(n_padded * AES_SCHEDULE_BYTES);
    uint8_t *keystreams = allocate(GROUP * KEYSTREAM_BYTES);
    uint64_t *sums = allocate((n_outputs + 1) * TILE * sizeof *sums);
    uint64_t *weights = malloc(n_padded * n_outputs * sizeof *weights);
    int complete = schedules && keystreams && sums && weights;
    if (complete) {
        memset(schedules, 0, n_padded * AES_SCHEDULE_BYTES);
        for (size_t i = 0; i < n_features; i++)
            expand_key(circuit->inputs + i * SEEDED_LWE_BYTES, schedules + i * AES_ROUND_KEYS);
        /* Beyond the last feature, the weight 0. */
        for (size_t at = 0; at < n_padded * n_outputs; at++)
            weights[at] = (uint64_t)((at < n_features * n_outputs ? circuit->weights[at] : 0) +
                                     WEIGHT_LIMIT);
        memset(keystreams, 0, GROUP * KEYSTREAM_BYTES);
        tiles(circuit, schedules, weights, keystreams, sums, result);
        linear_bodies(circuit, result);
    }
    free(schedules);
    free(keystreams);
    free(sums);
    free(weights);
    return complete ? 0 : -1;
}

#else
typedef int nothing_for_this_processor;
#endif
