"""SDK and command line of the party that alone holds the keys."""
