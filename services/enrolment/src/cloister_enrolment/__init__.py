"""Registers the public keys of sites that hold a join token."""
