/* AES-NI and AVX2. AVX2 multiplies 32 bits by 32: a word is split into halves, and weights are
 * raised to be non-negative.
 */
#if defined(__x86_64__)

#include "tiled.h"

#include <immintrin.h>

#define AVX2 __attribute__((target("aes,sse4.1,avx2")))

enum {
    LANES = 4,
    GROUP = 2,
    /* Vectors of sums held in registers at a time; TILE is a multiple of their words. */
    VECTORS = 2,
    /* Blocks of keystream computed side by side, which hides the latency of a round. */
    AES_BLOCKS = 8,
    KEYSTREAM_BYTES = TILE * 8 + AES_BLOCK_BYTES,
};

AVX2 static inline void keystream_blocks(const __m128i keys[AES_ROUND_KEYS], uint64_t block,
                                         uint8_t *keystream)
{
    __m128i states[AES_BLOCKS];
    for (int b = 0; b < AES_BLOCKS; b++)
        states[b] = _mm_xor_si128(_mm_set_epi64x(0, (long long)(block + b)), keys[0]);
    for (int round = 1; round < AES_ROUND_KEYS - 1; round++)
        for (int b = 0; b < AES_BLOCKS; b++)
            states[b] = _mm_aesenc_si128(states[b], keys[round]);
    for (int b = 0; b < AES_BLOCKS; b++)
        _mm_storeu_si128((__m128i *)keystream + b,
                         _mm_aesenclast_si128(states[b], keys[AES_ROUND_KEYS - 1]));
}

AVX2 static void expand(const uint8_t *schedule, uint64_t block, size_t n_blocks,
                        uint8_t *keystream)
{
    const __m128i *keys = (const __m128i *)schedule;
    size_t done = 0;
    for (; done < n_blocks; done += AES_BLOCKS)
        keystream_blocks(keys, block + done, keystream + done * AES_BLOCK_BYTES);
    __m128i last = _mm_xor_si128(_mm_set_epi64x(0, (long long)(block + done)), keys[0]);
    for (int round = 1; round < AES_ROUND_KEYS - 1; round++)
        last = _mm_aesenc_si128(last, keys[round]);
    _mm_storeu_si128((__m128i *)(keystream + done * AES_BLOCK_BYTES),
                     _mm_aesenclast_si128(last, keys[AES_ROUND_KEYS - 1]));
}

/* Add weights * words to the sums, and the words themselves to the sums of row n_outputs. */
AVX2 static void multiply(const uint8_t *keystreams, const int64_t *weights, size_t n_outputs,
                          size_t n_words, uint64_t *sums)
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
                weight[g] = _mm256_set1_epi64x(weights[g * n_outputs + j]);
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

int linear_avx2(const linear_circuit *circuit, uint8_t *result)
{
    static const tiled_kernel kernel = {
        .group = GROUP,
        .keystream_bytes = KEYSTREAM_BYTES,
        .raise = WEIGHT_LIMIT,
        .expand = expand,
        .multiply = multiply,
    };
    return linear_tiled(&kernel, circuit, result);
}

#else
typedef int nothing_for_this_processor;
#endif
