"""Concrete ML's client and server, in a process that keeps its exit code."""

from concrete.ml.deployment import FHEModelClient, FHEModelServer

from cloister_shared.concrete import keep_exit_code

__all__ = ["FHEModelClient", "FHEModelServer"]

keep_exit_code()
