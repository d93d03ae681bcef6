"""What a site's ClientApp is told of the site: where its rows are, and what it refuses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cloister_shared.rows.checking import Columns

NodeConfig = dict[str, bool | float | int | str]
"""Flower's form of it."""

SHARD_DIR = "shard-dir"
LABEL_COLUMN = "label-column"
IGNORED_COLUMNS = "ignored-columns"
REQUIRE_SECURE_AGGREGATION = "require-secure-aggregation"


@dataclass(frozen=True)
class Site:
    """One site, as its own settings describe it."""

    shard_dir: Path
    """The folder with its schema and rows."""
    columns: Columns = Columns()  # noqa: RUF009 - it is frozen
    """What it says of its CSV or Parquet table."""
    require_secure_aggregation: bool = False
    """Whether it refuses to send anything of its own in the clear."""

    def node_config(self) -> NodeConfig:
        """Return this in Flower's form."""
        return {
            SHARD_DIR: str(self.shard_dir),
            LABEL_COLUMN: self.columns.label or "",
            IGNORED_COLUMNS: json.dumps(sorted(self.columns.ignored)),
            REQUIRE_SECURE_AGGREGATION: self.require_secure_aggregation,
        }

    @classmethod
    def of(cls, node_config: Mapping[str, object]) -> Self:
        """Return the site that a node config describes.

        Raises:
            KeyError: it names no folder.
        """
        columns = Columns(
            str(node_config.get(LABEL_COLUMN) or "") or None,
            frozenset(json.loads(str(node_config.get(IGNORED_COLUMNS, "[]")))),
        )
        return cls(
            Path(str(node_config[SHARD_DIR])),
            columns,
            # Text too: what is not false is true.
            str(node_config.get(REQUIRE_SECURE_AGGREGATION, False)).lower() != "false",
        )
