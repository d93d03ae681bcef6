"""Runs a federated training as Flower ServerApp and publishes the aggregate."""
