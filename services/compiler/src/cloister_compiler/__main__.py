"""Compiles the current model once and exits."""

from cloister_compiler.artifact import publish_artifact
from cloister_compiler.selection import Precision
from cloister_compiler.settings import Settings
from cloister_shared.registry import Registry
from cloister_shared.service import run_service


def compile_once(settings: Settings) -> None:
    """Publish the artifact of the current model."""
    publish_artifact(
        Registry(settings.models_dir),
        Registry(settings.artifacts_dir),
        settings.model,
        precision=Precision(
            inputs=settings.bits_inputs or settings.bits,
            weights=settings.bits_weights or settings.bits,
            tolerance=settings.tolerance,
        ),
        publish_reference=settings.publish_reference,
        verification_samples=settings.verification_samples,
    )


def main() -> None:
    """Entry point of ``python -m cloister_compiler``."""
    run_service("compiler", Settings, compile_once)


if __name__ == "__main__":
    main()
