/* VAES and AVX-512: four blocks of keystream an instruction, eight words a multiplication. */
#if defined(__x86_64__)

#include "tiled.h"

#include <immintrin.h>

#define AVX512 __attribute__((target("aes,sse4.1,avx2,avx512f,avx512dq,avx512bw,vaes")))

enum {
    LANES = 8,
    GROUP = 4,
    /* Vectors of sums held in registers at a time; TILE is a multiple of their words. */
    VECTORS = 4,
    /* Vectors of keystream computed side by side, which hides the latency of a round. */
    AES_VECTORS = 8,
    BLOCKS_A_VECTOR = 4,
    KEYSTREAM_BYTES = (TILE + LANES) * 8,
};

AVX512 static inline void keystream_vectors(const __m512i keys[AES_ROUND_KEYS], uint64_t block,
                                            uint8_t *keystream)
{
    const __m512i step = _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0);
    __m512i states[AES_VECTORS];
    for (int v = 0; v < AES_VECTORS; v++) {
        __m512i first = _mm512_maskz_set1_epi64(0x55, (long long)(block + v * BLOCKS_A_VECTOR));
        states[v] = _mm512_xor_si512(_mm512_add_epi64(first, step), keys[0]);
    }
    for (int round = 1; round < AES_ROUND_KEYS - 1; round++)
        for (int v = 0; v < AES_VECTORS; v++)
            states[v] = _mm512_aesenc_epi128(states[v], keys[round]);
    for (int v = 0; v < AES_VECTORS; v++)
        _mm512_store_si512((__m512i *)keystream + v,
                           _mm512_aesenclast_epi128(states[v], keys[AES_ROUND_KEYS - 1]));
}

AVX512 static void expand(const uint8_t *schedule, uint64_t block, size_t n_blocks,
                          uint8_t *keystream)
{
    const __m128i *narrow = (const __m128i *)schedule;
    __m512i keys[AES_ROUND_KEYS];
    for (int round = 0; round < AES_ROUND_KEYS; round++)
        keys[round] = _mm512_broadcast_i32x4(narrow[round]);
    size_t done = 0;
    for (; done < n_blocks; done += AES_VECTORS * BLOCKS_A_VECTOR)
        keystream_vectors(keys, block + done, keystream + done * AES_BLOCK_BYTES);
    __m128i last = _mm_xor_si128(_mm_set_epi64x(0, (long long)(block + done)), narrow[0]);
    for (int round = 1; round < AES_ROUND_KEYS - 1; round++)
        last = _mm_aesenc_si128(last, narrow[round]);
    _mm_store_si128((__m128i *)(keystream + done * AES_BLOCK_BYTES),
                    _mm_aesenclast_si128(last, narrow[AES_ROUND_KEYS - 1]));
}

AVX512 static void multiply(const uint8_t *keystreams, const int64_t *weights, size_t n_outputs,
                            size_t n_words, uint64_t *sums)
{
    for (size_t at = 0; at < n_words; at += VECTORS * LANES) {
        __m512i words[GROUP][VECTORS];
        for (int g = 0; g < GROUP; g++)
            for (int v = 0; v < VECTORS; v++)
                words[g][v] = _mm512_loadu_si512(keystreams + g * KEYSTREAM_BYTES + MASK_OFFSET +
                                                 (at + v * LANES) * sizeof *sums);
        for (size_t j = 0; j < n_outputs; j++) {
            __m512i *sum = (__m512i *)(sums + j * TILE + at);
            __m512i totals[VECTORS];
            for (int v = 0; v < VECTORS; v++)
                totals[v] = _mm512_load_si512(sum + v);
            for (int g = 0; g < GROUP; g++) {
                __m512i weight = _mm512_set1_epi64(weights[g * n_outputs + j]);
                for (int v = 0; v < VECTORS; v++)
                    totals[v] = _mm512_add_epi64(totals[v],
                                                 _mm512_mullo_epi64(words[g][v], weight));
            }
            for (int v = 0; v < VECTORS; v++)
                _mm512_store_si512(sum + v, totals[v]);
        }
    }
}

int linear_avx512(const linear_circuit *circuit, uint8_t *result)
{
    static const tiled_kernel kernel = {
        .group = GROUP,
        .keystream_bytes = KEYSTREAM_BYTES,
        .raise = 0,
        .expand = expand,
        .multiply = multiply,
    };
    return linear_tiled(&kernel, circuit, result);
}

#else
typedef int nothing_for_this_processor;
#endif
