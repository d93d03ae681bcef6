/* Evaluation of a linear circuit on seeded LWE ciphertexts, as Concrete 2.10 computes it.
 *
 * A seeded ciphertext of dimension n is a 128-bit seed and a body. Its mask is n words of the
 * AES-128-CTR keystream under the seed, so the circuit is: expand every mask, multiply by the
 * integer weights, add up modulo 2^64. Nothing here is secret: seeds, bodies and weights are what
 * the service sees anyway, and no branch needs to hide them.
 */
#ifndef CLOISTER_LINEAR_H
#define CLOISTER_LINEAR_H

#include <stddef.h>
#include <stdint.h>

/* A seeded LWE ciphertext: 16 bytes of AES key, then the body, little-endian. */
#define SEEDED_LWE_BYTES 24
#define SEED_BYTES 16
#define AES_BLOCK_BYTES 16
/* AES-128 has a round key before the first round and one after each of ten (FIPS 197). */
#define AES_ROUND_KEYS 11
#define AES_SCHEDULE_BYTES (AES_ROUND_KEYS * AES_BLOCK_BYTES)
/* Concrete's generator hands out bytes from this position of the keystream on. */
#define MASK_OFFSET 1

/* Upper ends of the sizes, so that no product of them overflows. */
#define MAX_FEATURES (1u << 20)
#define MAX_OUTPUTS (1u << 16)
#define MAX_DIMENSION (1u << 16)
/* Above the magnitude of every weight; raised by it, a weight is below 2^32. */
#define WEIGHT_LIMIT ((int64_t)1 << 30)
/* Bytes of the largest result. */
#define MAX_RESULT_BYTES ((uint64_t)1 << 31)

typedef struct {
    /* Seeded ciphertexts, n_features * SEEDED_LWE_BYTES bytes. */
    const uint8_t *inputs;
    /* Row-major, n_features rows of n_outputs; every |weight| < WEIGHT_LIMIT. */
    const int64_t *weights;
    /* The bias of every output as it is added to a body: encoded, modulo 2^64. */
    const uint64_t *bias;
    size_t n_features;
    size_t n_outputs;
    /* LWE dimension n: words of a mask. */
    size_t dimension;
} linear_circuit;

/* Write the result, n_outputs ciphertexts of n mask words and a body each, little-endian, to
 * `result`, which may be unaligned. Returns 0, or -1 where scratch memory cannot be had. */
typedef int linear_kernel(const linear_circuit *circuit, uint8_t *result);

linear_kernel linear_portable;
#if defined(__x86_64__)
linear_kernel linear_avx2;
linear_kernel linear_avx512;
#endif

typedef struct {
    const char *name;
    linear_kernel *evaluate;
} linear_kernel_entry;

/* The kernels that this processor runs, fastest first; the last is portable. Returns how many. */
size_t linear_kernels(const linear_kernel_entry **entries);

/* Write AES-128 of 0, 1, 2, ... as little-endian blocks, each `stride` bytes after the one before. */
void aes_counters(const uint8_t key[SEED_BYTES], size_t count, uint8_t *blocks, size_t stride);

/* The bodies of the result: the part that every kernel shares. */
void linear_bodies(const linear_circuit *circuit, uint8_t *result);

#endif
