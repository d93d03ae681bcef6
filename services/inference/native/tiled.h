/* What the x86-64 kernels share: they differ in how they expand masks and multiply them. */
#ifndef CLOISTER_TILED_H
#define CLOISTER_TILED_H

#include "linear.h"

/* Words of a mask that are worked through together: their sums for ten outputs, and the keystream
 * of a group of masks, fit the first cache. */
#define TILE 256

typedef struct {
    /* Masks that are expanded before they are multiplied, so that a sum is loaded and stored once
     * for all of them. */
    size_t group;
    /* Between the keystreams of two masks of a group; a multiple of the alignment that the kernel
     * stores with. */
    size_t keystream_bytes;
    /* Added to every weight, for a kernel that multiplies non-negative numbers alone: it adds up
     * the words themselves in a row of sums after those of the outputs, and that many times the
     * row is subtracted from each. 0: no such row. */
    int64_t raise;
    /* Write n_blocks blocks of keystream from `block` on, and at least the first word of the next:
     * it is read from its second byte on. May write up to keystream_bytes. */
    void (*expand)(const uint8_t *schedule, uint64_t block, size_t n_blocks, uint8_t *keystream);
    /* Add the group's words times weights[g * n_outputs + j] to sums[j * TILE]. May add to all of
     * a tile whatever n_words is. */
    void (*multiply)(const uint8_t *keystreams, const int64_t *weights, size_t n_outputs,
                     size_t n_words, uint64_t *sums);
} tiled_kernel;

/* Evaluate as `linear_kernel` does. */
int linear_tiled(const tiled_kernel *kernel, const linear_circuit *circuit, uint8_t *result);

#endif
