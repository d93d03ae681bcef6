/* Marks what is secret as undefined for valgrind, which then reports every branch and every address
 * that depends on it: the kernel's name, and "leak" for a branch that must be reported.
 * After A. Langley, https://github.com/agl/ctgrind. */
#include "lwe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/memcheck.h>

enum { DIMENSION = 1577, WIDTH = 23, COUNT = 33, OUTPUTS = 3, BITS = 31, BODY_BITS = 38 };

static const double STD = 0x1p-37;

static void fill(void *memory, size_t bytes)
{
    uint8_t *at = memory;
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)rand();
}

static int all_defined(const void *memory, size_t bytes)
{
    uint8_t undefined[8] = {0}, any = 0;
    VALGRIND_GET_VBITS(memory, undefined, bytes);
    for (size_t i = 0; i < bytes; i++)
        any |= undefined[i];
    return !any;
}

int main(int argc, char **argv)
{
    static uint8_t random[DIMENSION / 8 + 1], noise[(COUNT + 1) * LWE_NOISE_BYTES];
    static uint8_t master[LWE_SEED_BYTES], seeds[COUNT * LWE_SEED_BYTES];
    static uint8_t packed[COUNT * BODY_BITS / 8 + 1], result[OUTPUTS * (DIMENSION + 1) * 8];
    static uint64_t key[DIMENSION], bodies[COUNT];
    static int64_t messages[COUNT], scores[OUTPUTS];
    const lwe_kernel *kernels[LWE_MOST_KERNELS], *kernel = NULL;
    size_t count = lwe_kernels(kernels);
    for (size_t at = 0; at < count && argc > 1; at++)
        if (strcmp(lwe_kernel_name(kernels[at]), argv[1]) == 0)
            kernel = kernels[at];
    if (!kernel || !RUNNING_ON_VALGRIND)
        return 2;

    fill(random, sizeof random);
    fill(noise, sizeof noise);
    fill(master, sizeof master);
    fill(messages, sizeof messages);
    fill(result, sizeof result);
    VALGRIND_MAKE_MEM_UNDEFINED(random, sizeof random);
    VALGRIND_MAKE_MEM_UNDEFINED(noise, sizeof noise);
    VALGRIND_MAKE_MEM_UNDEFINED(messages, sizeof messages);

    lwe_key_from_random(random, DIMENSION, key);
    lwe_expand_seeds(kernel, master, COUNT, seeds);
    lwe_encrypt(kernel, key, DIMENSION, WIDTH, STD, messages, COUNT, seeds, noise, bodies);
    lwe_pack(bodies, COUNT, BODY_BITS, packed);
    lwe_decrypt(key, DIMENSION, (lwe_encoding){WIDTH, 1}, result, OUTPUTS, scores);
    lwe_decrypt_packed(key, DIMENSION, (lwe_encoding){WIDTH, 0}, result, BITS, OUTPUTS, scores);
    /* Else what was computed from secrets was not followed. */
    if (all_defined(bodies, sizeof *bodies) || all_defined(scores, sizeof *scores))
        return 3;
    if (argc > 2 && strcmp(argv[2], "leak") == 0 && (key[0] & 1))
        puts("a branch on a bit of the key");
    return 0;
}
