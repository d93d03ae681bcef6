"""Encryptors at work: in threads of this process, or in processes of their own."""
