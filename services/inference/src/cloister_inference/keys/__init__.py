"""Evaluation keys, for circuits that need them."""
