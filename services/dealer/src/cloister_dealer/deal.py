"""One deal: the shards of one choice of settings, written whole or not at all."""

import io
import logging
import re
import shutil
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from cloister_dealer.partition import partition
from cloister_dealer.settings import Settings
from cloister_dealer.sources import Rows, load_source
from cloister_shared.datasets import chosen_schema
from cloister_shared.digests import digest_bytes, digest_file, digest_json
from cloister_shared.errors import CloisterError
from cloister_shared.files import given_file, write_atomically
from cloister_shared.rows.files import readable
from cloister_shared.samples import FEATURES, HELD_OUT, LABELS, SCHEMA
from cloister_shared.schema import DatasetSchema

DEAL = "deal.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


class Shard(BaseModel):
    """One shard: its number of rows and the SHA-256 of its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    sha256: str


class Deal(BaseModel):
    """All shards of one choice of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    """Digest of the settings that determine the shards."""
    data: DatasetSchema
    shards: tuple[Shard, ...]
    held_out_sha256: str
    """Of the key holder's file: held-out rows of another deal may be rows of these shards."""

    def shard_path(self, root: Path, index: int) -> Path:
        """Return the file of one shard under the dealer's folder."""
        return root / self.digest / f"shard-{index:04d}.npz"

    def is_whole(self, root: Path, held_out_dir: Path) -> bool:
        """Whether the shards' files and the key holder's are there and as they were written."""
        files = [
            (self.shard_path(root, index), shard.sha256) for index, shard in enumerate(self.shards)
        ]
        files += [
            (held_out_dir / HELD_OUT, self.held_out_sha256),
            (held_out_dir / SCHEMA, digest_bytes(_json(self.data))),
        ]
        return all(path.is_file() and digest_file(path) == sha256 for path, sha256 in files)


def deal(settings: Settings) -> Deal:
    """Return the deal of these settings, dealing only where it is not there already.

    Raises:
        CloisterError: see ``load_source`` and ``partition``.
        OSError: a volume is full or not writable.
    """
    root = settings.shards_dir
    description = chosen_schema(settings.dataset, settings.schema_path)
    digest = _settings_digest(settings, description)
    existing = _read(root)
    if existing and existing.digest == digest and existing.is_whole(root, settings.held_out_dir):
        log.info("%s is dealt already into %d shards", description.dataset, len(existing.shards))
        return existing

    if description.task == "regression" and settings.partition == "dirichlet":
        raise CloisterError(
            "CLOISTER_PARTITION=dirichlet skews classes, and a regression has none: use iid"
        )
    source = load_source(settings, description)
    parts = partition(
        source.train.labels,
        settings.n_shards,
        settings.partition,
        alpha=settings.dirichlet_alpha,
        seed=settings.seed,
    )
    folder = root / digest
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shards = []
    for index, rows in enumerate(parts):
        content = _npz(source.train.take(rows))
        write_atomically(folder / f"shard-{index:04d}.npz", content)
        shards.append(Shard(rows=len(rows), sha256=digest_bytes(content)))
    held_out = _npz(source.held_out)
    write_atomically(settings.held_out_dir / HELD_OUT, held_out)
    write_atomically(settings.held_out_dir / SCHEMA, _json(description))
    dealt = Deal(
        digest=digest,
        data=description,
        shards=tuple(shards),
        held_out_sha256=digest_bytes(held_out),
    )
    write_atomically(root / DEAL, _json(dealt))
    for path in root.iterdir():
        # Other folders than deals, such as a volume's lost+found, are not the dealer's.
        if path.is_dir() and path != folder and _DIGEST.fullmatch(path.name):
            shutil.rmtree(path)
    log.info(
        "dealt %s: %d shards of %d to %d rows, %d rows held out",
        description.dataset,
        len(shards),
        min(shard.rows for shard in shards),
        max(shard.rows for shard in shards),
        len(source.held_out.labels),
    )
    return dealt


def _settings_digest(settings: Settings, data: DatasetSchema) -> str:
    determining = settings.model_dump(
        mode="json", include={"dataset", "partition", "held_out_fraction", "seed"}
    )
    determining["shards"] = settings.n_shards
    determining["data"] = data.digest
    if path := given_file(settings.data_path):
        with readable(path):
            determining["rows"] = digest_file(path)
        determining["columns"] = [settings.columns.label, sorted(settings.columns.ignored)]
    if settings.partition == "dirichlet":
        determining["dirichlet_alpha"] = settings.dirichlet_alpha
    return digest_json(determining)


def _read(root: Path) -> Deal | None:
    try:
        return Deal.model_validate_json((root / DEAL).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _json(model: BaseModel) -> bytes:
    return model.model_dump_json(indent=2).encode()


def _npz(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{FEATURES: rows.features, LABELS: rows.labels})
    return buffer.getvalue()
