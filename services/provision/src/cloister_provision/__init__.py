"""Makes the federation's certificates and secrets where they are missing."""
