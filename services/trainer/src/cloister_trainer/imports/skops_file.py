"""A model in the skops format, read without constructing anything.

skops rebuilds objects from what a file names, and the version that Concrete ML needs can be led to
run code by it (CVE-2025-54412, CVE-2025-54413). Numbers, text and arrays are all that is needed of
a linear model: those are read here, and of everything else the name alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from cloister_shared.errors import CloisterError
from cloister_trainer.imports.archives import Archive, opened
from cloister_trainer.imports.foreign import PASSTHROUGH, Foreign, Step, Unread, check_kind

SCHEMA = "schema.json"
"""The tree of all objects in the archive."""
VERSION = "_sklearn_version"

Node = Mapping[str, Any]


def read_skops(path: Path) -> Foreign:
    """Read a linear estimator, alone or as the last step of a pipeline.

    Raises:
        CloisterError: the file is damaged, or holds a class that is not taken over; the message
            names it.
    """
    with opened(path) as archive:
        try:
            found = _Reader(archive).steps(json.loads(archive.read(SCHEMA)))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CloisterError(
                f"{path} is damaged: {SCHEMA} is not what skops writes ({type(error).__name__})"
            ) from None
    version = found[-1].attributes.get(VERSION)
    return Foreign(tuple(found[:-1]), found[-1], version if isinstance(version, str) else None)


class _Reader:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def steps(self, node: Node) -> list[Step]:
        """Return the step of this object, or all those of a pipeline."""
        kind = check_kind(node["__module__"], node["__class__"])
        if node["__loader__"] != "ObjectNode":
            raise CloisterError(f"the model holds a {node['__loader__']} named {kind}")
        members = node["content"]["content"]
        if kind != "Pipeline":
            return [Step(kind, {name: self._value(one) for name, one in members.items()})]
        found: list[Step] = []
        for pair in members["steps"]["content"]:
            _name, step = pair["content"]
            if step["__loader__"] != "JsonNode":
                found += self.steps(step)
            elif self._value(step) not in (PASSTHROUGH, None):
                raise CloisterError("the model's pipeline has a step that is no object")
        if not found:
            raise CloisterError("the model's pipeline has no steps")
        return found

    def _value(self, node: Node) -> Any:
        match node["__loader__"]:
            case "JsonNode":
                return json.loads(node["content"])
            case "ListNode" | "TupleNode":
                return [self._value(one) for one in node["content"]]
            case "NdArrayNode" if node["type"] == "numpy":
                return self._archive.array(cast("str", node["file"]))
            case "NdArrayNode":
                # Of objects, such as labels of several kinds.
                return np.array([self._value(one) for one in node["content"]], dtype=object)
        # Random states and functions of loss: a model predicts without them.
        return Unread()
