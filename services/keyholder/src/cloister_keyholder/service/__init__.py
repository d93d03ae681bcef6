"""The inference service's HTTP interface."""
