#if defined(__x86_64__)

#include "tiled.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#define AESNI __attribute__((target("aes,sse4.1")))

enum { VECTOR_BYTES = 64 };

static size_t round_up(size_t count, size_t multiple)
{
    return (count + multiple - 1) / multiple * multiple;
}

static void *allocate(size_t bytes)
{
    return aligned_alloc(VECTOR_BYTES, round_up(bytes, VECTOR_BYTES));
}

AESNI static __m128i next_round_key(__m128i key, __m128i assisted)
{
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, _mm_shuffle_epi32(assisted, 0xff));
}

AESNI static void expand_key(const uint8_t *seed, uint8_t *schedule)
{
    __m128i key = _mm_loadu_si128((const __m128i *)seed), *keys = (__m128i *)schedule;
    _mm_store_si128(keys, key);
#define ROUND(index, constant)                                                     \
    key = next_round_key(key, _mm_aeskeygenassist_si128(key, constant));           \
    _mm_store_si128(keys + (index), key)
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

typedef struct {
    uint8_t *schedules, *keystreams;
    int64_t *weights;
    uint64_t *sums;
} scratch;

static void work(const tiled_kernel *kernel, const linear_circuit *circuit, const scratch *memory,
                 uint8_t *result)
{
    size_t n_outputs = circuit->n_outputs, dimension = circuit->dimension;
    const uint64_t *raised = memory->sums + n_outputs * TILE;
    for (size_t first = 0; first < dimension; first += TILE) {
        size_t n_words = dimension - first < TILE ? dimension - first : TILE;
        memset(memory->sums, 0, (n_outputs + (kernel->raise != 0)) * TILE * sizeof *raised);
        for (size_t i = 0; i < circuit->n_features; i += kernel->group) {
            for (size_t g = 0; g < kernel->group; g++)
                kernel->expand(memory->schedules + (i + g) * AES_SCHEDULE_BYTES, first / 2,
                               (n_words + 1) / 2,
                               memory->keystreams + g * kernel->keystream_bytes);
            kernel->multiply(memory->keystreams, memory->weights + i * n_outputs, n_outputs,
                             n_words, memory->sums);
        }
        for (size_t j = 0; j < n_outputs; j++) {
            uint64_t *sum = memory->sums + j * TILE;
            for (size_t k = 0; kernel->raise && k < n_words; k++)
                sum[k] -= (uint64_t)kernel->raise * raised[k];
            memcpy(result + (j * (dimension + 1) + first) * sizeof *sum, sum,
                   n_words * sizeof *sum);
        }
    }
}

int linear_tiled(const tiled_kernel *kernel, const linear_circuit *circuit, uint8_t *result)
{
    size_t n_features = circuit->n_features, n_outputs = circuit->n_outputs;
    size_t n_padded = round_up(n_features, kernel->group);
    scratch memory = {
        .schedules = allocate(n_padded * AES_SCHEDULE_BYTES),
        .keystreams = allocate(kernel->group * kernel->keystream_bytes),
        .weights = malloc(n_padded * n_outputs * sizeof *memory.weights),
        .sums = allocate((n_outputs + (kernel->raise != 0)) * TILE * sizeof *memory.sums),
    };
    int complete = memory.schedules && memory.keystreams && memory.weights && memory.sums;
    if (complete) {
        /* The masks that fill the last group have the weight 0. */
        memset(memory.schedules, 0, n_padded * AES_SCHEDULE_BYTES);
        for (size_t i = 0; i < n_features; i++)
            expand_key(circuit->inputs + i * SEEDED_LWE_BYTES,
                       memory.schedules + i * AES_SCHEDULE_BYTES);
        for (size_t at = 0; at < n_padded * n_outputs; at++)
            memory.weights[at] =
                (at < n_features * n_outputs ? circuit->weights[at] : 0) + kernel->raise;
        memset(memory.keystreams, 0, kernel->group * kernel->keystream_bytes);
        work(kernel, circuit, &memory, result);
        linear_bodies(circuit, result);
    }
    free(memory.schedules);
    free(memory.keystreams);
    free(memory.weights);
    free(memory.sums);
    return complete ? 0 : -1;
}

#else
typedef int nothing_for_this_processor;
#endif
