/* The floor: how fast this processor can do the arithmetic of one prediction at all.
 *
 * A linear circuit needs n_features * n words of AES-128-CTR keystream (ten rounds a block) and
 * n_features * n * n_outputs multiplications and additions of 64-bit words. This does just that
 * many, on registers: no seeds are read, no keys expanded, no sums stored.
 *
 * usage: floor n_features n_outputs n   prints JSON, milliseconds: the least of many runs
 */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { VECTORS = 8, ROUNDS = 10, RUNS = 200 };

#define AVX512 __attribute__((target("avx512f,avx512dq,vaes"), noinline))
#define AVX2 __attribute__((target("avx2,aes"), noinline))

static double now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* Eight words a vector. */
AVX512 static uint64_t avx512(size_t n_vectors, size_t n_outputs, int expand, int multiply,
                              const int64_t *weights)
{
    __m512i keys[ROUNDS], states[VECTORS], sums[VECTORS];
    for (int round = 0; round < ROUNDS; round++)
        keys[round] = _mm512_set1_epi64(round + 1);
    for (int v = 0; v < VECTORS; v++)
        sums[v] = states[v] = _mm512_set1_epi64(v);
    for (size_t at = 0; at < n_vectors; at += VECTORS) {
        if (expand)
            for (int round = 0; round < ROUNDS; round++)
                for (int v = 0; v < VECTORS; v++)
                    states[v] = _mm512_aesenc_epi128(states[v], keys[round]);
        if (multiply)
            for (size_t j = 0; j < n_outputs; j++) {
                __m512i weight = _mm512_set1_epi64(weights[j]);
                for (int v = 0; v < VECTORS; v++)
                    sums[v] = _mm512_add_epi64(sums[v], _mm512_mullo_epi64(states[v], weight));
            }
        for (int v = 0; v < VECTORS; v++)
            __asm__ volatile("" : "+v"(states[v]), "+v"(sums[v]));
    }
    __m512i total = _mm512_setzero_si512();
    for (int v = 0; v < VECTORS; v++)
        total = _mm512_add_epi64(total, _mm512_xor_si512(states[v], sums[v]));
    return (uint64_t)_mm512_reduce_add_epi64(total);
}

/* Two words a block of AES, four a vector of products, each of two halves. */
AVX2 static uint64_t avx2(size_t n_vectors, size_t n_outputs, int expand, int multiply,
                          const int64_t *weights)
{
    enum { BLOCKS = 8 };
    __m128i keys[ROUNDS], states[BLOCKS];
    __m256i words[BLOCKS / 2], sums[BLOCKS / 2];
    for (int round = 0; round < ROUNDS; round++)
        keys[round] = _mm_set1_epi64x(round + 1);
    for (int b = 0; b < BLOCKS; b++)
        states[b] = _mm_set1_epi64x(b);
    for (int b = 0; b < BLOCKS / 2; b++)
        sums[b] = words[b] = _mm256_set1_epi64x(b);
    for (size_t at = 0; at < n_vectors; at += 2) {
        if (expand)
            for (int round = 0; round < ROUNDS; round++)
                for (int b = 0; b < BLOCKS; b++)
                    states[b] = _mm_aesenc_si128(states[b], keys[round]);
        if (multiply) {
            for (int b = 0; b < BLOCKS / 2; b++)
                words[b] = _mm256_xor_si256(
                    words[b], _mm256_set_m128i(states[2 * b + 1], states[2 * b]));
            for (size_t j = 0; j < n_outputs; j++) {
                __m256i weight = _mm256_set1_epi64x(weights[j]);
                for (int b = 0; b < BLOCKS / 2; b++) {
                    __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(words[b], 32), weight);
                    sums[b] = _mm256_add_epi64(sums[b], _mm256_mul_epu32(words[b], weight));
                    sums[b] = _mm256_add_epi64(sums[b], high);
                }
            }
        }
        for (int b = 0; b < BLOCKS; b++)
            __asm__ volatile("" : "+x"(states[b]));
        for (int b = 0; b < BLOCKS / 2; b++)
            __asm__ volatile("" : "+x"(words[b]), "+x"(sums[b]));
    }
    __m256i total = _mm256_setzero_si256();
    for (int b = 0; b < BLOCKS / 2; b++)
        total = _mm256_add_epi64(total, _mm256_xor_si256(words[b], sums[b]));
    uint64_t lanes[4];
    _mm256_storeu_si256((__m256i *)lanes, total);
    return lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3];
}

typedef uint64_t arithmetic(size_t, size_t, int, int, const int64_t *);

static double least(arithmetic *run, size_t n_vectors, size_t n_outputs, int expand, int multiply,
                    const int64_t *weights)
{
    double best = 1e9;
    volatile uint64_t sink = 0;
    for (int at = 0; at < RUNS; at++) {
        double start = now_ms();
        sink += run(n_vectors, n_outputs, expand, multiply, weights);
        double took = now_ms() - start;
        best = took < best ? took : best;
    }
    return best;
}

static void report(const char *name, arithmetic *run, size_t n_vectors, size_t n_outputs,
                   const int64_t *weights)
{
    printf("\"%s\": {\"aes\": %.4f, \"multiply_add\": %.4f, \"both\": %.4f}", name,
           least(run, n_vectors, n_outputs, 1, 0, weights),
           least(run, n_vectors, n_outputs, 0, 1, weights),
           least(run, n_vectors, n_outputs, 1, 1, weights));
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fprintf(stderr, "usage: floor n_features n_outputs n\n"), 2;
    size_t n_features = strtoul(argv[1], NULL, 10), n_outputs = strtoul(argv[2], NULL, 10);
    size_t dimension = strtoul(argv[3], NULL, 10);
    size_t n_vectors = (n_features * dimension + 7) / 8;
    int64_t *weights = malloc(n_outputs * sizeof *weights);
    if (!weights)
        return 1;
    for (size_t j = 0; j < n_outputs; j++)
        weights[j] = (int64_t)j * 37 % 256;
    printf("{");
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("vaes")) {
        report("avx512", avx512, n_vectors, n_outputs, weights);
        printf(", ");
    }
    report("avx2", avx2, n_vectors, n_outputs, weights);
    printf("}\n");
    free(weights);
    return 0;
}
