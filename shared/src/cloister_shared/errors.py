"""The error that a user can act on."""


class CloisterError(Exception):
    """Something the user can mend; the message says what is wrong and what to do.

    A service that ends with it prints the message alone, without a traceback, and exits 1.
    """
