/* What a kernel is: the part that differs between processors. */
#ifndef CLOISTER_LWE_KERNEL_H
#define CLOISTER_LWE_KERNEL_H

#include "lwe.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ciphertexts are little-endian, and so must be the processor"
#endif

#define BLOCK_BYTES 16
/* AES-128 has a round key before the first round and one after each of ten (FIPS 197). */
#define ROUND_KEYS 11
/* Concrete's generator hands out bytes from this position of the keystream on. */
#define MASK_OFFSET 1

/* A kernel writes whole groups of so many blocks. */
#define GROUP_BLOCKS 128
/* A mask is made and used a tile at a time, which the fastest cache holds. A tile's last word ends
 * in the first block of the next tile. */
#define TILE_BLOCKS 1024
#define TILE_WORDS (TILE_BLOCKS * BLOCK_BYTES / 8)
#define TILE_BYTES ((TILE_BLOCKS + GROUP_BLOCKS) * BLOCK_BYTES)

struct lwe_kernel {
    const char *name;
    /* Write at least `count` <= TILE_BLOCKS + 1 blocks of a seed's keystream, from block `first` on,
     * a multiple of TILE_BLOCKS, to `keystream`, of TILE_BYTES and aligned to 64. A block is the
     * encryption of its number, 128 bits, little-endian. */
    void (*expand)(const uint8_t seed[LWE_SEED_BYTES], uint64_t first, size_t count,
                   uint8_t *keystream);
    /* The sum of those of `count` words whose key word is set, modulo 2^64; words are unaligned. */
    uint64_t (*product)(const uint8_t *words, const lwe_key_word *key, size_t count);
};

extern const lwe_kernel lwe_portable;
#if defined(__x86_64__)
/* Null where the processor lacks the instructions. */
const lwe_kernel *lwe_aesni(void);
const lwe_kernel *lwe_vaes(void);
#endif

/* Compiled anew where a kernel includes it, for the vectors of that kernel. */
static inline __attribute__((always_inline)) uint64_t masked_sum(const uint8_t *words,
                                                                  const lwe_key_word *key,
                                                                  size_t count)
{
    uint64_t sum = 0;
    for (size_t k = 0; k < count; k++) {
        uint64_t word;
        memcpy(&word, words + k * sizeof word, sizeof word);
        sum += word & key[k];
    }
    return sum;
}

#endif
