"""Settings of the compiler."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cloister_shared.probes import TOLERANCE
from cloister_shared.service import ServiceSettings

SMALLEST_BITS, LARGEST_BITS = 2, 8


def _bits(value: Any) -> Any:
    # One message in place of one for each of the types that it could have been.
    if value is None:
        return None
    text = str(value).strip().lower()
    if text == "auto":
        return text
    if text.isdecimal() and SMALLEST_BITS <= int(text) <= LARGEST_BITS:
        return int(text)
    raise ValueError(f"must be {SMALLEST_BITS} to {LARGEST_BITS}, or auto")


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    model: str = "digits"
    """Name of the model to compile; its current version is taken."""
    models_dir: Path = Path("models")
    """Registry of models, read."""
    artifacts_dir: Path = Path("artifacts")
    """Registry of artifacts, written."""
    bits: Annotated[int | Literal["auto"] | None, BeforeValidator(_bits)] = None
    """Bits to which inputs and weights are quantised, 2 to 8; auto takes the cheapest that stay
    within the tolerance; None: as the model's card says, else 8. Of trees the values of leaves are
    quantised, and inputs lose nothing."""
    bits_inputs: int | None = Field(default=None, ge=SMALLEST_BITS, le=LARGEST_BITS)
    """Bits of the inputs alone; None: as ``bits`` says. Not of trees."""
    bits_weights: int | None = Field(default=None, ge=SMALLEST_BITS, le=LARGEST_BITS)
    """Bits of the weights alone; None: as ``bits`` says."""
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)
    """Largest share of synthetic rows that the quantised model may predict otherwise than the
    float one; above it nothing is published."""
    publish_reference: bool = True
    """Publish the circuit in the clear, which lets a key holder check its results."""
    verification_samples: int = Field(default=16, ge=1)
    """Random inputs that go through real encrypted execution before an artifact is published."""
    retrain: bool = False
    """Compile again what was deleted; without, it is not taken for missing."""
