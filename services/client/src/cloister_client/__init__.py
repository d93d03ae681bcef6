"""One site: a Flower SuperNode with its ClientApp and its own shard."""
