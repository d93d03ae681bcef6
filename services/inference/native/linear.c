#include "linear.h"

#include <string.h>

static const linear_kernel_entry ENTRIES[] = {
#if defined(__x86_64__)
    {"avx512", linear_avx512},
    {"avx2", linear_avx2},
#endif
    {"portable", linear_portable},
};
#define N_ENTRIES (sizeof ENTRIES / sizeof *ENTRIES)

size_t linear_kernels(const linear_kernel_entry **entries)
{
    size_t first = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("aes");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("vaes");
    first = avx512 ? 0 : avx2 ? 1 : 2;
#endif
    *entries = ENTRIES + first;
    return N_ENTRIES - first;
}

void linear_bodies(const linear_circuit *circuit, uint8_t *result)
{
    size_t stride = (circuit->dimension + 1) * sizeof(uint64_t);
    for (size_t j = 0; j < circuit->n_outputs; j++) {
        uint64_t sum = circuit->bias[j];
        for (size_t i = 0; i < circuit->n_features; i++) {
            uint64_t body;
            memcpy(&body, circuit->inputs + i * SEEDED_LWE_BYTES + SEED_BYTES, sizeof body);
            sum += body * (uint64_t)circuit->weights[i * circuit->n_outputs + j];
        }
        memcpy(result + j * stride + circuit->dimension * sizeof sum, &sum, sizeof sum);
    }
}
