/* Compact messages: the bytes of seeded inputs and of results, rounded and packed.
 *
 * An input is a master seed and n bodies of `bits` bits; a result its words of `bits` bits. Words are
 * packed without gaps, lowest bits first.
 */
#ifndef CLOISTER_COMPACT_H
#define CLOISTER_COMPACT_H

#include "linear.h"

#define COMPACT_SMALLEST_BITS 8
#define COMPACT_LARGEST_BITS 56

size_t compact_packed_bytes(size_t count, unsigned bits);

/* Write the seeded ciphertexts, n_features * SEEDED_LWE_BYTES, that a compact input stands for: each
 * seed is the encryption of the input's index, a little-endian block, under the master seed. */
void compact_expand(const uint8_t *compact, size_t n_features, unsigned bits, uint8_t *seeded);

/* Round and pack a result's ciphertexts. To every body half of what was added to its mask's words is
 * added first, which leaves a key of as many ones as zeros no error on average. */
void compact_pack(const uint8_t *result, size_t n_outputs, size_t dimension, unsigned bits,
                  uint8_t *packed);

#endif
