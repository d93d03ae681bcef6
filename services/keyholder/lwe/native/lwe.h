/* Keys, seeded encryption and decryption of binary LWE, as Concrete 2.10 has them.
 *
 * A secret key is n bits. A seeded ciphertext of an integer m is a 128-bit seed and a body: the seed
 * is an AES-128 key, whose counter-mode keystream gives the n words of the mask a, and the body is
 * <a, s> + m 2^(63 - width) + e modulo 2^64, with e from a rounded Gaussian. Of two parts of a
 * ciphertext the mask hides nothing and the body everything, so that seeds are public and key bits,
 * messages and noise are secret.
 *
 * No function here branches on a secret, uses one as an index, or divides or takes a root by an
 * instruction whose time depends on its operands; none keeps state. All randomness is passed in: the
 * caller takes it from the operating system and nowhere else.
 */
#ifndef CLOISTER_LWE_H
#define CLOISTER_LWE_H

#include <stddef.h>
#include <stdint.h>

#define LWE_SEED_BYTES 16
/* A seed, then the body, little-endian. */
#define LWE_SEEDED_BYTES 24
/* Of randomness for the noise of one ciphertext. */
#define LWE_NOISE_BYTES 8

/* From which the security curve was fitted, and the largest that this code takes. */
#define LWE_SMALLEST_DIMENSION 450
#define LWE_LARGEST_DIMENSION (1u << 14)
#define LWE_LARGEST_COUNT (1u << 20)
#define LWE_LARGEST_WIDTH 61

/* The smallest and largest numbers of bits to which words of compact messages are rounded. */
#define LWE_SMALLEST_BITS 8
#define LWE_LARGEST_BITS 56

typedef struct lwe_kernel lwe_kernel;

/* A secret key: all ones where a bit is set, else zero; for n words. */
typedef uint64_t lwe_key_word;

#define LWE_MOST_KERNELS 3
/* The kernels that this processor runs, fastest first; the last runs on any. Returns how many. */
size_t lwe_kernels(const lwe_kernel *kernels[LWE_MOST_KERNELS]);
const char *lwe_kernel_name(const lwe_kernel *kernel);

/* Whether noise of a standard deviation relative to 2^64 gives 128 bits of security at a dimension,
 * and both are in the range that this code takes. */
int lwe_is_safe(size_t dimension, double std);

/* Randomness that a key takes: a bit of it for every bit. */
size_t lwe_key_random_bytes(size_t dimension);
void lwe_key_from_random(const uint8_t *random, size_t dimension, lwe_key_word *key);

/* Fill `seeds`, count * LWE_SEED_BYTES, with the first blocks of a master seed's keystream. */
void lwe_expand_seeds(const lwe_kernel *kernel, const uint8_t master[LWE_SEED_BYTES], size_t count,
                      uint8_t *seeds);

/* Encrypt `count` integers.
 *
 * messages: each in the range of the encoding; taken modulo 2^(width + 1).
 * seeds: count * LWE_SEED_BYTES of randomness or of a random master seed, never used before.
 * noise: count * LWE_NOISE_BYTES of randomness, rounded up to an even count; overwritten with zeros.
 * bodies: count words.
 */
void lwe_encrypt(const lwe_kernel *kernel, const lwe_key_word *key, size_t dimension, unsigned width,
                 double std, const int64_t *messages, size_t count, const uint8_t *seeds,
                 uint8_t *noise, uint64_t *bodies);
/* Bytes of `noise` for `count` integers. */
size_t lwe_noise_bytes(size_t count);

/* Of the integers in a result. */
typedef struct {
    /* Bits, 1 to LWE_LARGEST_WIDTH. */
    unsigned width;
    int is_signed;
} lwe_encoding;

/* Decrypt `count` ciphertexts of n mask words and a body each, little-endian, unaligned.
 *
 * scores: the integers nearest to the phases, as Concrete decodes them: in [0, 2^(width + 1)), or,
 * of a signed encoding, in [-2^width, 2^(width - 1)).
 */
void lwe_decrypt(const lwe_key_word *key, size_t dimension, lwe_encoding encoding,
                 const uint8_t *words, size_t count, int64_t *scores);

/* Bytes of `count` words of `bits` bits each, one after another without gaps. */
size_t lwe_packed_bytes(size_t count, unsigned bits);
/* Round words to their upper `bits` bits, modulo 2^64, and pack these. */
void lwe_pack(const uint64_t *words, size_t count, unsigned bits, uint8_t *packed);
/* As lwe_decrypt, of ciphertexts whose words are packed. */
void lwe_decrypt_packed(const lwe_key_word *key, size_t dimension, lwe_encoding encoding,
                        const uint8_t *packed, unsigned bits, size_t count, int64_t *scores);

/* Overwrite memory with zeros in a way that no compiler leaves out. */
void lwe_wipe(void *memory, size_t bytes);

#endif
