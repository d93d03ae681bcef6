"""A training and its encrypted evaluation as one HTML file."""
