"""Queries: the steps of one, and many at a time within bounds."""
