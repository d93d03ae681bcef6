"""Encrypted predictions measured on held-out samples."""
