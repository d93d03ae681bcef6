"""The one address in front of every replica of the inference service."""
