"""Settings of the compiler."""

from pathlib import Path

from pydantic import Field

from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    model: str = "digits"
    """Name of the model to compile; its current version is taken."""
    models_dir: Path = Path("models")
    """Registry of models, read."""
    artifacts_dir: Path = Path("artifacts")
    """Registry of artifacts, written."""
    bits: int = Field(default=8, ge=2, le=8)
    """Bits to which inputs and weights are quantised."""
    publish_reference: bool = True
    """Publish the circuit in the clear, which lets a key holder check its results."""
    verification_samples: int = Field(default=16, ge=1)
    """Random inputs that go through real encrypted execution before an artifact is published."""
