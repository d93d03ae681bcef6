"""Evaluates models on encrypted inputs over the Open Inference Protocol."""
