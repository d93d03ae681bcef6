"""Settings of an import."""

from pathlib import Path

from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    models_dir: Path = Path("models")
    """Registry of models, written."""
    out_of_bounds: OutOfBounds = "refuse"
    """What key holders do with a value outside its declared bounds."""
    retrain: bool = False
    """Publish another version even where the same model is published."""
