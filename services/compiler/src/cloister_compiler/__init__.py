"""Compiles a published model to run on ciphertexts, proves it, and publishes the artifact."""
