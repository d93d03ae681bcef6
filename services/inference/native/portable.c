/* Any processor with little-endian words. */
#include "linear.h"

#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ciphertexts are little-endian, and so must be the processor"
#endif

/* FIPS 197, figure 7. */
static const uint8_t SBOX[256] = {
    0x63, 0x7c, 0x77, 0x7b, 0xf2, 0x6b, 0x6f, 0xc5, 0x30, 0x01, 0x67, 0x2b, 0xfe, 0xd7, 0xab, 0x76,
    0xca, 0x82, 0xc9, 0x7d, 0xfa, 0x59, 0x47, 0xf0, 0xad, 0xd4, 0xa2, 0xaf, 0x9c, 0xa4, 0x72, 0xc0,
    0xb7, 0xfd, 0x93, 0x26, 0x36, 0x3f, 0xf7, 0xcc, 0x34, 0xa5, 0xe5, 0xf1, 0x71, 0xd8, 0x31, 0x15,
    0x04, 0xc7, 0x23, 0xc3, 0x18, 0x96, 0x05, 0x9a, 0x07, 0x12, 0x80, 0xe2, 0xeb, 0x27, 0xb2, 0x75,
    0x09, 0x83, 0x2c, 0x1a, 0x1b, 0x6e, 0x5a, 0xa0, 0x52, 0x3b, 0xd6, 0xb3, 0x29, 0xe3, 0x2f, 0x84,
    0x53, 0xd1, 0x00, 0xed, 0x20, 0xfc, 0xb1, 0x5b, 0x6a, 0xcb, 0xbe, 0x39, 0x4a, 0x4c, 0x58, 0xcf,
    0xd0, 0xef, 0xaa, 0xfb, 0x43, 0x4d, 0x33, 0x85, 0x45, 0xf9, 0x02, 0x7f, 0x50, 0x3c, 0x9f, 0xa8,
    0x51, 0xa3, 0x40, 0x8f, 0x92, 0x9d, 0x38, 0xf5, 0xbc, 0xb6, 0xda, 0x21, 0x10, 0xff, 0xf3, 0xd2,
    0xcd, 0x0c, 0x13, 0xec, 0x5f, 0x97, 0x44, 0x17, 0xc4, 0xa7, 0x7e, 0x3d, 0x64, 0x5d, 0x19, 0x73,
    0x60, 0x81, 0x4f, 0xdc, 0x22, 0x2a, 0x90, 0x88, 0x46, 0xee, 0xb8, 0x14, 0xde, 0x5e, 0x0b, 0xdb,
    0xe0, 0x32, 0x3a, 0x0a, 0x49, 0x06, 0x24, 0x5c, 0xc2, 0xd3, 0xac, 0x62, 0x91, 0x95, 0xe4, 0x79,
    0xe7, 0xc8, 0x37, 0x6d, 0x8d, 0xd5, 0x4e, 0xa9, 0x6c, 0x56, 0xf4, 0xea, 0x65, 0x7a, 0xae, 0x08,
    0xba, 0x78, 0x25, 0x2e, 0x1c, 0xa6, 0xb4, 0xc6, 0xe8, 0xdd, 0x74, 0x1f, 0x4b, 0xbd, 0x8b, 0x8a,
    0x70, 0x3e, 0xb5, 0x66, 0x48, 0x03, 0xf6, 0x0e, 0x61, 0x35, 0x57, 0xb9, 0x86, 0xc1, 0x1d, 0x9e,
    0xe1, 0xf8, 0x98, 0x11, 0x69, 0xd9, 0x8e, 0x94, 0x9b, 0x1e, 0x87, 0xe9, 0xce, 0x55, 0x28, 0xdf,
    0x8c, 0xa1, 0x89, 0x0d, 0xbf, 0xe6, 0x42, 0x68, 0x41, 0x99, 0x2d, 0x0f, 0xb0, 0x54, 0xbb, 0x16,
};

static uint8_t times_two(uint8_t x)
{
    return (uint8_t)(x << 1) ^ (uint8_t)((x >> 7) * 0x1b);
}

static void expand_key(const uint8_t key[SEED_BYTES], uint8_t schedule[AES_SCHEDULE_BYTES])
{
    uint8_t constant = 1;
    memcpy(schedule, key, SEED_BYTES);
    for (size_t at = SEED_BYTES; at < AES_SCHEDULE_BYTES; at += 4) {
        uint8_t word[4];
        memcpy(word, schedule + at - 4, sizeof word);
        if (at % SEED_BYTES == 0) {
            uint8_t first = word[0];
            word[0] = SBOX[word[1]] ^ constant;
            word[1] = SBOX[word[2]];
            word[2] = SBOX[word[3]];
            word[3] = SBOX[first];
            constant = times_two(constant);
        }
        for (size_t byte = 0; byte < sizeof word; byte++)
            schedule[at + byte] = schedule[at + byte - SEED_BYTES] ^ word[byte];
    }
}

/* What a byte adds to its column in a round: SubBytes and MixColumns for the first row; the other
 * rows' are rotations of it. */
static void fill_table(uint32_t table[256])
{
    for (unsigned x = 0; x < 256; x++) {
        uint8_t s = SBOX[x], s2 = times_two(s);
        table[x] = (uint32_t)s2 | (uint32_t)s << 8 | (uint32_t)s << 16 |
                   (uint32_t)(uint8_t)(s2 ^ s) << 24;
    }
}

static uint32_t rotate(uint32_t x, unsigned bits)
{
    return x << bits | x >> (32 - bits);
}

static void encrypt_counter(const uint32_t table[256], const uint8_t schedule[AES_SCHEDULE_BYTES],
                            uint64_t counter, uint8_t block[AES_BLOCK_BYTES])
{
    uint32_t keys[AES_ROUND_KEYS * 4], state[4], next[4];
    memcpy(keys, schedule, sizeof keys);
    memcpy(state, &counter, sizeof counter);
    memset(state + 2, 0, sizeof counter);
    for (size_t c = 0; c < 4; c++)
        state[c] ^= keys[c];
    for (size_t round = 1; round < AES_ROUND_KEYS - 1; round++) {
        for (size_t c = 0; c < 4; c++)
            next[c] = table[state[c] & 0xff] ^ rotate(table[state[(c + 1) % 4] >> 8 & 0xff], 8) ^
                      rotate(table[state[(c + 2) % 4] >> 16 & 0xff], 16) ^
                      rotate(table[state[(c + 3) % 4] >> 24], 24) ^ keys[round * 4 + c];
        memcpy(state, next, sizeof state);
    }
    for (size_t c = 0; c < 4; c++)
        next[c] = ((uint32_t)SBOX[state[c] & 0xff] | (uint32_t)SBOX[state[(c + 1) % 4] >> 8 & 0xff] << 8 |
                   (uint32_t)SBOX[state[(c + 2) % 4] >> 16 & 0xff] << 16 |
                   (uint32_t)SBOX[state[(c + 3) % 4] >> 24] << 24) ^
                  keys[(AES_ROUND_KEYS - 1) * 4 + c];
    memcpy(block, next, sizeof next);
}

void aes_counters(const uint8_t key[SEED_BYTES], size_t count, uint8_t *blocks, size_t stride)
{
    uint32_t table[256];
    uint8_t schedule[AES_SCHEDULE_BYTES];
    fill_table(table);
    expand_key(key, schedule);
    for (size_t block = 0; block < count; block++)
        encrypt_counter(table, schedule, block, blocks + block * stride);
}

int linear_portable(const linear_circuit *circuit, uint8_t *result)
{
    size_t dimension = circuit->dimension, n_outputs = circuit->n_outputs;
    size_t n_blocks = (dimension * sizeof(uint64_t) + MASK_OFFSET + AES_BLOCK_BYTES - 1) / AES_BLOCK_BYTES;
    uint8_t *keystream = malloc(n_blocks * AES_BLOCK_BYTES);
    uint64_t *sums = calloc(dimension * n_outputs, sizeof *sums);
    if (!keystream || !sums) {
        free(keystream);
        free(sums);
        return -1;
    }
    uint32_t table[256];
    fill_table(table);
    for (size_t i = 0; i < circuit->n_features; i++) {
        uint8_t schedule[AES_SCHEDULE_BYTES];
        expand_key(circuit->inputs + i * SEEDED_LWE_BYTES, schedule);
        for (size_t block = 0; block < n_blocks; block++)
            encrypt_counter(table, schedule, block, keystream + block * AES_BLOCK_BYTES);
        for (size_t j = 0; j < n_outputs; j++) {
            uint64_t weight = (uint64_t)circuit->weights[i * n_outputs + j];
            uint64_t *sum = sums + j * dimension;
            for (size_t k = 0; k < dimension; k++) {
                uint64_t word;
                memcpy(&word, keystream + MASK_OFFSET + k * sizeof word, sizeof word);
                sum[k] += weight * word;
            }
        }
    }
    size_t mask_bytes = dimension * sizeof *sums;
    for (size_t j = 0; j < n_outputs; j++)
        memcpy(result + j * (mask_bytes + sizeof *sums), sums + j * dimension, mask_bytes);
    linear_bodies(circuit, result);
    free(keystream);
    free(sums);
    return 0;
}
