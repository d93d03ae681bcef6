/* AES-128 in counter mode on any processor, without a table: bit-sliced, a block a lane.
 *
 * A plane holds one bit of many blocks, so that ShiftRows and the byte rotations of MixColumns are
 * a matter of names, and SubBytes is a circuit of logical operations.
 */
#include "kernel.h"

#if defined(__wasm__) && !defined(__wasm_simd128__)
typedef uint64_t plane;
#define WORDS 1
#define WORD(p, w) (p)
#else
typedef uint64_t plane __attribute__((vector_size(16)));
#define WORDS 2
#define WORD(p, w) ((p)[w])
#endif

enum { LANES = 64 * WORDS, BLOCK_BITS = 8 * BLOCK_BYTES };

static plane filled(uint64_t word)
{
    plane p;
    for (int w = 0; w < WORDS; w++)
        WORD(p, w) = word;
    return p;
}

/* SubBytes of one byte of every block: bits[i] is the bit of value 2^i.
 * The circuit is that of J. Boyar and R. Peralta, "A depth-16 circuit for the AES S-box",
 * https://eprint.iacr.org/2011/332, in its names: u0 and s0 are the highest bits. */
static void sub_byte(plane bits[8])
{
    plane u0 = bits[7], u1 = bits[6], u2 = bits[5], u3 = bits[4];
    plane u4 = bits[3], u5 = bits[2], u6 = bits[1], u7 = bits[0];

    plane y14 = u3 ^ u5, y13 = u0 ^ u6, y9 = u0 ^ u3, y8 = u0 ^ u5;
    plane t0 = u1 ^ u2, y1 = t0 ^ u7, y4 = y1 ^ u3, y12 = y13 ^ y14;
    plane y2 = y1 ^ u0, y5 = y1 ^ u6, y3 = y5 ^ y8, t1 = u4 ^ y12;
    plane y15 = t1 ^ u5, y20 = t1 ^ u1, y6 = y15 ^ u7, y10 = y15 ^ t0;
    plane y11 = y20 ^ y9, y7 = u7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8;
    plane y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = u0 ^ y16;

    plane t2 = y12 & y15, t4 = (y3 & y6) ^ t2, t6 = (y4 & u7) ^ t2;
    plane t7 = y13 & y16, t9 = (y5 & y1) ^ t7, t11 = (y2 & y7) ^ t7;
    plane t12 = y9 & y11, t14 = (y14 & y17) ^ t12, t16 = (y8 & y10) ^ t12;
    plane t21 = t4 ^ t14 ^ y20, t22 = t6 ^ t16 ^ y19;
    plane t23 = t9 ^ t14 ^ y21, t24 = t11 ^ t16 ^ y18;
    plane t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t29 = (t25 & t27) ^ t22;
    plane t30 = t23 ^ t24, t31 = t22 ^ t26, t33 = (t31 & t30) ^ t24;
    plane t34 = t23 ^ t33, t35 = t27 ^ t33, t36 = t24 & t35, t37 = t36 ^ t34;
    plane t38 = t27 ^ t36, t40 = t25 ^ (t29 & t38);
    plane t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40, t44 = t33 ^ t37, t45 = t42 ^ t41;

    plane z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & u7, z3 = t43 & y16, z4 = t40 & y1;
    plane z5 = t29 & y7, z6 = t42 & y11, z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12;
    plane z10 = t37 & y3, z11 = t33 & y4, z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2;
    plane z15 = t42 & y9, z16 = t45 & y14, z17 = t41 & y8;

    plane t46 = z15 ^ z16, t47 = z10 ^ z11, t48 = z5 ^ z13, t49 = z9 ^ z10, t50 = z2 ^ z12;
    plane t51 = z2 ^ z5, t52 = z7 ^ z8, t53 = z0 ^ z3, t54 = z6 ^ z7, t55 = z16 ^ z17;
    plane t56 = z12 ^ t48, t57 = t50 ^ t53, t58 = z4 ^ t46, t59 = z3 ^ t54, t60 = t46 ^ t57;
    plane t61 = z14 ^ t57, t62 = t52 ^ t58, t63 = t49 ^ t58, t64 = z4 ^ t59, t65 = t61 ^ t62;
    plane t66 = z1 ^ t63, t67 = t64 ^ t65, s3 = t53 ^ t66;
    bits[7] = t59 ^ t63;
    bits[6] = t64 ^ ~s3;
    bits[5] = t55 ^ ~t67;
    bits[4] = s3;
    bits[3] = t51 ^ t66;
    bits[2] = t47 ^ t65;
    bits[1] = t56 ^ ~t62;
    bits[0] = t48 ^ ~t60;
}

static void sub_word(uint8_t word[4])
{
    plane bits[8];
    for (int b = 0; b < 8; b++) {
        uint64_t packed = 0;
        for (int at = 0; at < 4; at++)
            packed |= (uint64_t)(word[at] >> b & 1) << at;
        bits[b] = filled(packed);
    }
    sub_byte(bits);
    for (int at = 0; at < 4; at++) {
        uint8_t byte = 0;
        for (int b = 0; b < 8; b++)
            byte |= (uint8_t)((WORD(bits[b], 0) >> at & 1) << b);
        word[at] = byte;
    }
}

/* The key schedule of FIPS 197, 5.2, as a word of all ones or zeros for every bit of it. */
static void expand_key(const uint8_t key[LWE_SEED_BYTES], uint64_t masks[ROUND_KEYS * BLOCK_BITS])
{
    uint8_t schedule[ROUND_KEYS * BLOCK_BYTES], constant = 1;
    memcpy(schedule, key, LWE_SEED_BYTES);
    for (size_t at = LWE_SEED_BYTES; at < sizeof schedule; at += 4) {
        uint8_t word[4];
        memcpy(word, schedule + at - 4, sizeof word);
        if (at % LWE_SEED_BYTES == 0) {
            uint8_t first = word[0];
            memmove(word, word + 1, 3);
            word[3] = first;
            sub_word(word);
            word[0] ^= constant;
            constant = (uint8_t)(constant << 1) ^ (uint8_t)((constant >> 7) * 0x1b);
        }
        for (size_t byte = 0; byte < sizeof word; byte++)
            schedule[at + byte] = schedule[at + byte - LWE_SEED_BYTES] ^ word[byte];
    }
    for (size_t bit = 0; bit < ROUND_KEYS * BLOCK_BITS; bit++)
        masks[bit] = 0 - (uint64_t)(schedule[bit / 8] >> bit % 8 & 1);
}

/* Blocks first, first + 1, ...: `first` is a multiple of LANES. */
static void set_counters(plane state[BLOCK_BITS], uint64_t first)
{
    /* The bits of 0 to 63, a lane each. */
    static const uint64_t LOW[6] = {0xaaaaaaaaaaaaaaaa, 0xcccccccccccccccc, 0xf0f0f0f0f0f0f0f0,
                                    0xff00ff00ff00ff00, 0xffff0000ffff0000, 0xffffffff00000000};
    for (int bit = 0; bit < 6; bit++)
        state[bit] = filled(LOW[bit]);
    for (int bit = 6; bit < 64; bit++)
        for (int w = 0; w < WORDS; w++)
            WORD(state[bit], w) = 0 - (((first + 64 * (uint64_t)w) >> bit) & 1);
    for (int bit = 64; bit < BLOCK_BITS; bit++)
        state[bit] = filled(0);
}

static void add_round_key(plane state[BLOCK_BITS], const uint64_t masks[BLOCK_BITS])
{
    for (int bit = 0; bit < BLOCK_BITS; bit++)
        state[bit] ^= filled(masks[bit]);
}

/* SubBytes, then ShiftRows: byte r + 4 c comes from r + 4 (c + r mod 4). */
static void sub_and_shift(const plane state[BLOCK_BITS], plane shifted[BLOCK_BITS])
{
    for (int at = 0; at < BLOCK_BYTES; at++) {
        int row = at % 4, column = at / 4;
        plane *bits = shifted + 8 * at;
        memcpy(bits, state + 8 * (row + 4 * ((column + row) % 4)), 8 * sizeof *bits);
        sub_byte(bits);
    }
}

/* MixColumns: with d = a[r] ^ a[r + 1], byte r becomes 2 d ^ a[r + 1] ^ a[r + 2] ^ a[r + 3] in the
 * field of x^8 + x^4 + x^3 + x + 1. */
static void mix_columns(const plane a[BLOCK_BITS], plane mixed[BLOCK_BITS])
{
    for (int at = 0; at < BLOCK_BYTES; at++) {
        int column = at / 4 * 4, row = at % 4;
        const plane *here = a + 8 * at, *one = a + 8 * (column + (row + 1) % 4);
        const plane *two = a + 8 * (column + (row + 2) % 4), *three = a + 8 * (column + (row + 3) % 4);
        plane high = here[7] ^ one[7];
        plane *out = mixed + 8 * at;
        for (int b = 0; b < 8; b++)
            out[b] = one[b] ^ two[b] ^ three[b];
        out[0] ^= high;
        for (int b = 1; b < 8; b++)
            out[b] ^= here[b - 1] ^ one[b - 1];
        out[1] ^= high;
        out[3] ^= high;
        out[4] ^= high;
    }
}

/* Transpose 64 x 64 bits in every word: bit j of rows[i] changes places with bit i of rows[j]. */
static void transpose(plane rows[64])
{
    uint64_t low = 0x00000000ffffffff;
    for (int step = 32; step; step >>= 1, low ^= low << step)
        for (int i = 0; i < 64; i = ((i | step) + 1) & ~step) {
            plane change = (rows[i] >> step ^ rows[i | step]) & filled(low);
            rows[i] ^= change << step;
            rows[i | step] ^= change;
        }
}

static void write_blocks(plane state[BLOCK_BITS], uint8_t *keystream)
{
    for (int half = 0; half < 2; half++) {
        plane *rows = state + 64 * half;
        transpose(rows);
        for (int lane = 0; lane < 64; lane++)
            for (int w = 0; w < WORDS; w++) {
                uint64_t word = WORD(rows[lane], w);
                memcpy(keystream + (64 * w + lane) * BLOCK_BYTES + 8 * half, &word, sizeof word);
            }
    }
}

static void expand(const uint8_t seed[LWE_SEED_BYTES], uint64_t first, size_t count,
                   uint8_t *keystream)
{
    uint64_t masks[ROUND_KEYS * BLOCK_BITS];
    expand_key(seed, masks);
    for (size_t block = 0; block < count; block += LANES) {
        plane state[BLOCK_BITS], shifted[BLOCK_BITS];
        set_counters(state, first + block);
        add_round_key(state, masks);
        for (int round = 1; round < ROUND_KEYS - 1; round++) {
            sub_and_shift(state, shifted);
            mix_columns(shifted, state);
            add_round_key(state, masks + round * BLOCK_BITS);
        }
        sub_and_shift(state, shifted);
        add_round_key(shifted, masks + (ROUND_KEYS - 1) * BLOCK_BITS);
        write_blocks(shifted, keystream + block * BLOCK_BYTES);
    }
}

static uint64_t product(const uint8_t *words, const lwe_key_word *key, size_t count)
{
    return masked_sum(words, key, count);
}

const lwe_kernel lwe_portable = {"portable", expand, product};
