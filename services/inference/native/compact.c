#include "compact.h"

#include <string.h>

#define WORD_BITS 64

size_t compact_packed_bytes(size_t count, unsigned bits)
{
    return (count * bits + 7) / 8;
}

static uint64_t unpacked(const uint8_t *packed, size_t bytes, unsigned bits, size_t index)
{
    size_t at = index * bits, byte = at / 8;
    uint64_t value = 0;
    memcpy(&value, packed + byte, bytes - byte < sizeof value ? bytes - byte : sizeof value);
    return value >> at % 8 << (WORD_BITS - bits);
}

void compact_expand(const uint8_t *compact, size_t n_features, unsigned bits, uint8_t *seeded)
{
    const uint8_t *bodies = compact + SEED_BYTES;
    size_t bytes = compact_packed_bytes(n_features, bits);
    aes_counters(compact, n_features, seeded, SEEDED_LWE_BYTES);
    for (size_t i = 0; i < n_features; i++) {
        uint64_t body = unpacked(bodies, bytes, bits, i);
        memcpy(seeded + i * SEEDED_LWE_BYTES + SEED_BYTES, &body, sizeof body);
    }
}

/* Words that are written one after another, of less than a byte in between. */
typedef struct {
    uint8_t *at;
    uint64_t held;
    unsigned count;
} writer;

static void put(writer *to, uint64_t value, unsigned bits)
{
    /* At most 7 + 56 bits. */
    to->held |= value << to->count;
    to->count += bits;
    for (; to->count >= 8; to->count -= 8, to->held >>= 8)
        *to->at++ = (uint8_t)to->held;
}

void compact_pack(const uint8_t *result, size_t n_outputs, size_t dimension, unsigned bits,
                  uint8_t *packed)
{
    unsigned dropped = WORD_BITS - bits;
    uint64_t half = 1ull << (dropped - 1);
    writer to = {packed, 0, 0};
    for (size_t j = 0; j < n_outputs; j++) {
        uint64_t word, correction = 0;
        for (size_t k = 0; k < dimension; k++, result += sizeof word) {
            memcpy(&word, result, sizeof word);
            uint64_t upper = (word + half) >> dropped;
            /* Half of a difference that may be negative: it is below 2^55 in magnitude. */
            correction += (uint64_t)((int64_t)((upper << dropped) - word) / 2);
            put(&to, upper, bits);
        }
        memcpy(&word, result, sizeof word);
        result += sizeof word;
        put(&to, (word + correction + half) >> dropped, bits);
    }
    if (to.count)
        *to.at = (uint8_t)to.held;
}
