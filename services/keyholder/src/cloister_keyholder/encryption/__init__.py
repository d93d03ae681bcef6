"""One circuit: its parameters, and what makes keys, encrypts and decrypts for it."""
