"""What two Cloister services must agree on, and nothing else."""
