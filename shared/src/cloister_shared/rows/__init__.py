"""Rows in CSV, Parquet and .npz files: read, and checked against the schema."""
