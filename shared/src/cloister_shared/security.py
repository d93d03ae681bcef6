"""The security curve that Concrete chooses parameters by."""

# The 128-bit curve for binary keys of the security curves that Concrete 2.10 optimises with: log2
# of the smallest standard deviation of the noise, relative to the modulus, that is safe for an LWE
# dimension n is CURVE_SLOPE * n + CURVE_BIAS.
# Source: https://github.com/zama-ai/concrete, tools/parameter-curves
CURVE_SLOPE = -0.025696778711484593
CURVE_BIAS = 2.675931372549016
