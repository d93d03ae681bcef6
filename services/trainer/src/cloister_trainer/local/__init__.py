"""Training where all rows are in one place, without Flower."""
