/* The Box-Muller transform: for u in (0, 1) and v in [0, 1), sqrt(-2 log u) times the cosine and the
 * sine of 2 pi v are independent and Gaussian. Its cosine, sine, logarithm and root are here sums and
 * products alone, and choices are masks: library functions branch and look up tables, and divisions
 * and roots take a time that depends on their operands. Products and sums must not be fused
 * (-ffp-contract=off), so that every machine computes the same.
 */
#include "noise.h"

#include <string.h>

#define UNIFORM_BITS 52

static uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static double double_of(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* sum of c[i] x^i, i < count. */
static double polynomial(const double *c, int count, double x)
{
    double value = c[count - 1];
    for (int i = count - 2; i >= 0; i--)
        value = value * x + c[i];
    return value;
}

/* 1 / x for x in [1.7, 2.42]: the best line, of error 0.0075 relative to 1, then Newton's iteration,
 * which squares that of x times the value. */
static double reciprocal(double x)
{
    double y = 0.99259 - 0.24264 * x;
    for (int i = 0; i < 4; i++)
        y = y * (2.0 - x * y);
    return y;
}

/* With x = m 2^e, m in [sqrt(1/2), sqrt(2)) and s = (m - 1) / (m + 1), |s| < 0.1716:
 * log x = e log 2 + 2 (s + s^3 / 3 + s^5 / 5 + ...); what is left out is below 1e-18. */
double noise_log(double x)
{
    static const double ODD[12] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11,
                                   1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23};
    const uint64_t root_half = 0x3fe6a09e667f3bcd;
    const double log_two = 0.693147180559945309417;
    uint64_t bits = bits_of(x);
    /* An arithmetic shift of a difference that may be negative, in words without a sign. */
    uint64_t exponent = ((bits - root_half + (1024ull << 52)) >> 52) - 1024;
    double m = double_of(bits - (exponent << 52));
    double s = (m - 1.0) * reciprocal(m + 1.0);
    return (double)(int64_t)exponent * log_two + 2.0 * s * polynomial(ODD, 12, s * s);
}

/* Root of a normal number. Halving the exponent's bits gives its inverse to within 3.5 %
 * (C. Lomont, "Fast inverse square root", 2003), and every step of Newton's squares that. */
static double root(double x)
{
    double y = double_of(0x5fe6eb50c7b537a9 - (bits_of(x) >> 1));
    for (int i = 0; i < 5; i++)
        y = y * (1.5 - 0.5 * x * y * y);
    return x * y;
}

static double choose(uint64_t mask, double if_set, double if_not)
{
    return double_of((bits_of(if_set) & mask) | (bits_of(if_not) & ~mask));
}

static double negate_if(uint64_t bit, double x)
{
    return double_of(bits_of(x) ^ bit << 63);
}

/* Cosine and sine of 2 pi k / 2^52: Taylor's series within pi / 4 of the nearest quarter turn, whose
 * first omitted terms are below 1e-17. */
static void turn(uint64_t k, double *cosine, double *sine)
{
    static const double COSINE[9] = {1.0,
                                     -1.0 / 2,
                                     1.0 / 24,
                                     -1.0 / 720,
                                     1.0 / 40320,
                                     -1.0 / 3628800,
                                     1.0 / 479001600,
                                     -1.0 / 87178291200,
                                     1.0 / 20922789888000};
    static const double SINE[8] = {1.0,          -1.0 / 6,       1.0 / 120,        -1.0 / 5040,
                                   1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000};
    const double two_pi = 6.28318530717958647693;
    uint64_t quarter = (k + (1ull << 49)) >> 50;
    int64_t rest = (int64_t)(k - (quarter << 50));
    double angle = two_pi * ((double)rest * 0x1p-52);
    double square = angle * angle;
    double c = polynomial(COSINE, 9, square), s = angle * polynomial(SINE, 8, square);
    uint64_t swapped = 0 - (quarter & 1);
    *cosine = negate_if((quarter + 1) >> 1 & 1, choose(swapped, s, c));
    *sine = negate_if(quarter >> 1 & 1, choose(swapped, c, s));
}

static int64_t rounded(double x)
{
    double half = double_of(bits_of(0.5) | (bits_of(x) & 1ull << 63));
    return (int64_t)(x + half);
}

void noise_pair(const uint64_t uniform[2], double std, int64_t pair[2])
{
    /* The middle of one of 2^52 equal parts of (0, 1), exactly: an odd number below 2^53. */
    double u = (double)(int64_t)(uniform[0] >> (64 - UNIFORM_BITS) << 1 | 1) * 0x1p-53;
    double radius = std * root(-2.0 * noise_log(u));
    double cosine, sine;
    turn(uniform[1] >> (64 - UNIFORM_BITS), &cosine, &sine);
    pair[0] = rounded(radius * cosine);
    pair[1] = rounded(radius * sine);
}
