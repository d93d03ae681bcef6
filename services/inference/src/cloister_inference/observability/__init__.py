"""What is counted, timed and logged."""
