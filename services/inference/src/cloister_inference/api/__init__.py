"""HTTP: bodies, endpoints and their description."""
