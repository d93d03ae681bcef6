"""Deals a dataset into shards and leases one to each simulated site."""
