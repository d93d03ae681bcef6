#include "lwe.h"

#include "kernel.h"
#include "noise.h"

#define WORD_BITS 64
#define WORD_BYTES 8

/* The curve of 128 bits of security for binary keys: log2 of the least standard deviation relative
 * to 2^64 is SLOPE * dimension + BIAS. Source: https://github.com/zama-ai/concrete,
 * tools/parameter-curves; Concrete's own parameters lie on it. */
#define CURVE_SLOPE (-0.025696778711484593)
#define CURVE_BIAS 2.675931372549016
/* Noise must cover the two lowest bits of a word: rounding would make less of it vanish. */
#define SMALLEST_STD 0x1p-62
/* So that no noise wraps round. */
#define LARGEST_STD 0x1p-6
/* For the rounding of the variance in a specification. */
#define TOLERANCE 1e-6

size_t lwe_kernels(const lwe_kernel *kernels[LWE_MOST_KERNELS])
{
    size_t count = 0;
#if defined(__x86_64__)
    const lwe_kernel *found[] = {lwe_vaes(), lwe_aesni()};
    for (size_t at = 0; at < sizeof found / sizeof *found; at++)
        if (found[at])
            kernels[count++] = found[at];
#endif
    kernels[count++] = &lwe_portable;
    return count;
}

const char *lwe_kernel_name(const lwe_kernel *kernel)
{
    return kernel->name;
}

int lwe_is_safe(size_t dimension, double std)
{
    const double log_two = 0.693147180559945309417;
    return dimension >= LWE_SMALLEST_DIMENSION && dimension <= LWE_LARGEST_DIMENSION &&
           std >= SMALLEST_STD && std <= LARGEST_STD &&
           noise_log(std) >= (CURVE_SLOPE * (double)dimension + CURVE_BIAS - TOLERANCE) * log_two;
}

void lwe_wipe(void *memory, size_t bytes)
{
    memset(memory, 0, bytes);
    /* Claims to read the memory, so that what was written there is not superfluous. */
    __asm__ volatile("" : : "r"(memory) : "memory");
}

size_t lwe_key_random_bytes(size_t dimension)
{
    return (dimension + 7) / 8;
}

void lwe_key_from_random(const uint8_t *random, size_t dimension, lwe_key_word *key)
{
    for (size_t k = 0; k < dimension; k++)
        key[k] = 0 - (lwe_key_word)(random[k / 8] >> k % 8 & 1);
}

void lwe_expand_seeds(const lwe_kernel *kernel, const uint8_t master[LWE_SEED_BYTES], size_t count,
                      uint8_t *seeds)
{
    _Alignas(64) uint8_t keystream[TILE_BYTES];
    for (size_t done = 0; done < count; done += TILE_BLOCKS) {
        size_t some = count - done < TILE_BLOCKS ? count - done : TILE_BLOCKS;
        kernel->expand(master, done, some, keystream);
        memcpy(seeds + done * LWE_SEED_BYTES, keystream, some * LWE_SEED_BYTES);
    }
}

/* <a, s> for the mask of a seed. */
static uint64_t mask_product(const lwe_kernel *kernel, const uint8_t seed[LWE_SEED_BYTES],
                             const lwe_key_word *key, size_t dimension)
{
    _Alignas(64) uint8_t keystream[TILE_BYTES];
    uint64_t sum = 0;
    for (size_t done = 0; done < dimension; done += TILE_WORDS) {
        size_t some = dimension - done < TILE_WORDS ? dimension - done : TILE_WORDS;
        size_t blocks = (MASK_OFFSET + some * WORD_BYTES + BLOCK_BYTES - 1) / BLOCK_BYTES;
        kernel->expand(seed, done * WORD_BYTES / BLOCK_BYTES, blocks, keystream);
        sum += kernel->product(keystream + MASK_OFFSET, key + done, some);
    }
    return sum;
}

size_t lwe_noise_bytes(size_t count)
{
    return (count + count % 2) * LWE_NOISE_BYTES;
}

void lwe_encrypt(const lwe_kernel *kernel, const lwe_key_word *key, size_t dimension, unsigned width,
                 double std, const int64_t *messages, size_t count, const uint8_t *seeds,
                 uint8_t *noise, uint64_t *bodies)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t product = mask_product(kernel, seeds + i * LWE_SEED_BYTES, key, dimension);
        bodies[i] = product + ((uint64_t)messages[i] << (WORD_BITS - 1 - width));
    }
    for (size_t i = 0; i < count; i += 2) {
        uint64_t uniform[2];
        int64_t pair[2];
        memcpy(uniform, noise + i * LWE_NOISE_BYTES, sizeof uniform);
        noise_pair(uniform, std * 0x1p64, pair);
        bodies[i] += (uint64_t)pair[0];
        if (i + 1 < count)
            bodies[i + 1] += (uint64_t)pair[1];
        lwe_wipe(uniform, sizeof uniform);
        lwe_wipe(pair, sizeof pair);
    }
    lwe_wipe(noise, lwe_noise_bytes(count));
}

/* The integer nearest to a phase in units of 2^(63 - width), as Concrete takes it: of its width + 1
 * bits the highest is padding, and in a signed integer each of the two highest says that it is
 * negative. */
static int64_t decoded(uint64_t phase, lwe_encoding encoding)
{
    unsigned width = encoding.width;
    uint64_t half_units = phase >> (WORD_BITS - 2 - width);
    uint64_t units = ((half_units + 1) >> 1) & ((2ull << width) - 1);
    uint64_t high = units >> (width - 1);
    uint64_t negative = 0 - ((high | high >> 1) & (encoding.is_signed != 0));
    return (int64_t)(units | (negative << width));
}

void lwe_decrypt(const lwe_key_word *key, size_t dimension, lwe_encoding encoding,
                 const uint8_t *words, size_t count, int64_t *scores)
{
    for (size_t j = 0; j < count; j++) {
        uint64_t body, product = masked_sum(words, key, dimension);
        memcpy(&body, words + dimension * WORD_BYTES, sizeof body);
        words += (dimension + 1) * WORD_BYTES;
        scores[j] = decoded(body - product, encoding);
    }
}

size_t lwe_packed_bytes(size_t count, unsigned bits)
{
    return (count * bits + 7) / 8;
}

void lwe_pack(const uint64_t *words, size_t count, unsigned bits, uint8_t *packed)
{
    memset(packed, 0, lwe_packed_bytes(count, bits));
    for (size_t i = 0, at = 0; i < count; i++, at += bits) {
        unsigned dropped = WORD_BITS - bits;
        uint64_t value = (words[i] + (1ull << (dropped - 1))) >> dropped;
        /* With its offset in a byte a value has at most 56 + 7 bits. */
        value <<= at % 8;
        for (size_t byte = at / 8; byte <= (at + bits - 1) / 8; byte++, value >>= 8)
            packed[byte] |= (uint8_t)value;
    }
}

static uint64_t unpacked(const uint8_t *packed, size_t bytes, unsigned bits, size_t index)
{
    size_t at = index * bits, byte = at / 8;
    uint64_t value = 0;
    if (bytes - byte >= sizeof value)
        memcpy(&value, packed + byte, sizeof value);
    else
        memcpy(&value, packed + byte, bytes - byte);
    return value >> at % 8 << (WORD_BITS - bits);
}

void lwe_decrypt_packed(const lwe_key_word *key, size_t dimension, lwe_encoding encoding,
                        const uint8_t *packed, unsigned bits, size_t count, int64_t *scores)
{
    size_t words = count * (dimension + 1), bytes = lwe_packed_bytes(words, bits);
    for (size_t j = 0, at = 0; j < count; j++) {
        uint64_t phase = 0;
        for (size_t k = 0; k < dimension; k++, at++)
            phase -= unpacked(packed, bytes, bits, at) & key[k];
        phase += unpacked(packed, bytes, bits, at++);
        scores[j] = decoded(phase, encoding);
    }
}
