"""The versions that are published, and the threads that evaluate with them."""
