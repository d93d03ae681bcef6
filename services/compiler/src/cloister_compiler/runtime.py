"""Concrete ML's client and server, contained."""

from concrete.ml.deployment import FHEModelClient, FHEModelServer

from cloister_shared.concrete import contain_concrete

__all__ = ["FHEModelClient", "FHEModelServer"]

contain_concrete()
