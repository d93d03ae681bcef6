"""What the commands have in common, and those about keys."""
