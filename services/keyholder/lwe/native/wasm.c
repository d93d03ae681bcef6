/* The core as a WebAssembly module, for JavaScript to call.
 *
 * Whoever calls lays out the memory from __heap_base on, and passes addresses in it that are multiples
 * of 8, and parameters that it has held to lwe.h and to is_safe. The module imports nothing: its
 * caller writes randomness into the memory before each call. A memory is for one query, and is to be
 * overwritten as a whole when that ends.
 */
#include "kernel.h"

#define EXPORTED(name) __attribute__((export_name(#name)))

EXPORTED(is_safe) int wasm_is_safe(size_t dimension, double std)
{
    return lwe_is_safe(dimension, std);
}

/* `random` has a bit for each of the key's, rounded up to bytes, and is overwritten. */
EXPORTED(make_key) void wasm_make_key(uint8_t *random, size_t dimension, lwe_key_word *key)
{
    lwe_key_from_random(random, dimension, key);
    lwe_wipe(random, lwe_key_random_bytes(dimension));
}

/* As lwe_encrypt; messages are overwritten too. `seeded` gets count * LWE_SEEDED_BYTES. */
EXPORTED(encrypt)
void wasm_encrypt(const lwe_key_word *key, size_t dimension, unsigned width, double std,
                  int64_t *messages, size_t count, const uint8_t *seeds, uint8_t *noise,
                  uint64_t *bodies, uint8_t *seeded)
{
    lwe_encrypt(&lwe_portable, key, dimension, width, std, messages, count, seeds, noise, bodies);
    lwe_wipe(messages, count * sizeof *messages);
    for (size_t i = 0; i < count; i++, seeded += LWE_SEEDED_BYTES) {
        memcpy(seeded, seeds + i * LWE_SEED_BYTES, LWE_SEED_BYTES);
        memcpy(seeded + LWE_SEED_BYTES, bodies + i, sizeof *bodies);
    }
}

EXPORTED(decrypt)
void wasm_decrypt(const lwe_key_word *key, size_t dimension, unsigned width, int is_signed,
                  const uint8_t *words, size_t count, int64_t *scores)
{
    lwe_decrypt(key, dimension, (lwe_encoding){width, is_signed}, words, count, scores);
}
