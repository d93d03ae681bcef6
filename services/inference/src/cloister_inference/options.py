"""How a process serves."""

from dataclasses import dataclass, field
from pathlib import Path

from cloister_inference.evaluation.evaluator import EvaluatorSetting


@dataclass(frozen=True)
class KeyOptions:
    """Where evaluation keys are kept, and how many."""

    dir: Path = Path("evaluation-keys")
    """On a volume that all replicas share."""
    key_bytes: int = 256 << 20
    """That one set may have."""
    quota_bytes: int = 1 << 30
    """That the sets of one owner may have together."""
    days: float = 30
    """Since the last use after which a set is removed."""
    cache_bytes: int = 2 << 30
    """Memory for sets in use."""


@dataclass(frozen=True)
class Options:
    """Bounds on the work of one process, and what it may do."""

    threads: int
    """Encrypted evaluations at a time."""
    max_batch: int
    """Ciphertexts in one request at most."""
    queue: int = 256
    """Ciphertexts that may wait or be evaluated at a time; at least ``max_batch``."""
    deadline_seconds: float = 30.0
    """From the head of a request to the end of its evaluation; then it is given up."""
    loaded_versions: int = 4
    """Versions that stay loaded besides the current ones."""
    poll_seconds: float = 2.0
    """Between two looks at the registry."""
    model_control: bool = True
    """Whether clients may load and unload models."""
    choices_dir: Path | None = None
    """Where choices of versions over HTTP are kept, on a volume that all replicas share; None:
    none are taken."""
    evaluator: EvaluatorSetting = "auto"
    """Which one is asked for."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may query it."""
    keys: KeyOptions = field(default_factory=KeyOptions)
    """Where evaluation keys are kept, and how many."""
