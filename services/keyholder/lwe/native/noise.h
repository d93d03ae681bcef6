/* Noise for LWE: rounded Gaussians from uniform bits, in a time that does not depend on them. */
#ifndef CLOISTER_LWE_NOISE_H
#define CLOISTER_LWE_NOISE_H

#include <stdint.h>

/* Natural logarithm of a positive, finite, normal number; the error is below 1e-15 of max(1, |it|). */
double noise_log(double x);

/* Two independent Gaussians of a standard deviation, each rounded to an integer, from 2 * 64 uniform
 * bits, of which the 52 highest of each are used. The pair's length ends at sqrt(106 log 2), 8.572
 * standard deviations: 2^-53 of the probability lies beyond. */
void noise_pair(const uint64_t uniform[2], double std, int64_t pair[2]);

#endif
