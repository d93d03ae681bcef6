"""One circuit: the form of what comes in, and the code that evaluates it."""
