"""Settings of a tuning."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cloister_shared.rows.checking import Reading
from cloister_trainer.local.settings import Settings as LocalSettings

Bits = Annotated[int, Field(ge=2, le=8)]
Share = Annotated[float, Field(ge=0, lt=1)]
Pool = Annotated[int, Field(ge=1)]


class Settings(LocalSettings):
    """Environment variables with the prefix CLOISTER_; those of a local training besides."""

    tune_rows: int = Field(default=10_000, ge=0)
    """Rows that are searched with, drawn with each class's share; 0: all of the file."""
    tune_tolerance: float = Field(default=0.005, ge=0, lt=1)
    """What may be lost of the best score for a cheaper model: accuracy, or of a regression the
    share by which its mean absolute error may be larger."""
    tune_bits_inputs: tuple[Bits, ...] = Field(default=(2, 3, 4, 6, 8), min_length=1)
    """Bits of the inputs to try, as a JSON list."""
    tune_bits_weights: tuple[Bits, ...] = Field(default=(3, 4, 6, 8), min_length=1)
    """Bits of the weights to try, as a JSON list."""
    tune_prune: tuple[Share, ...] = Field(default=(0, 0.25, 0.5, 0.75), min_length=1)
    """Shares of the inputs to take the weights from, as a JSON list."""
    tune_pool: tuple[Pool, ...] = Field(default=(1, 2, 4), min_length=1)
    """Pixels, down and across, to pool into one input, as a JSON list; of images alone, and of
    those that divide their shape."""
    tuned_dir: Path = Path("tuned")
    """Folder that gets what was chosen."""

    @property
    def encoded_reading(self) -> Reading:
        """How the rows are read: encoded, since what they become depends on the pool.

        Raises:
            CloisterError: there is no schema at ``schema_path``.
        """
        return replace(self.reading, encoded=True)
