"""Publishes a model that was trained elsewhere, and exits."""

import argparse
from functools import partial
from pathlib import Path

from cloister_shared.service import run_service
from cloister_trainer.imports.importing import Request, import_model
from cloister_trainer.imports.settings import Settings


def main() -> None:
    """Entry point of ``python -m cloister_trainer.imports``."""
    parser = argparse.ArgumentParser(
        prog="python -m cloister_trainer.imports",
        description="Publish a linear scikit-learn model that was trained elsewhere.",
    )
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="skops, .npz, or pickle or joblib; told by content"
    )
    parser.add_argument(
        "--schema", required=True, help="JSON file, or name of a dataset that Cloister knows"
    )
    parser.add_argument("--name", required=True, help="under which the model is published")
    parser.add_argument(
        "--fitted-on",
        choices=("raw", "unit"),
        default="raw",
        help="what the model takes: values in the unit of the data (raw), or values mapped from "
        "the schema's bounds to [0, 1] (unit); default: raw",
    )
    parser.add_argument(
        "--card", metavar="JSON", type=Path, help="describes the model of an .npz: its estimator"
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="run whatever code is in a pickle or joblib file",
    )
    parser.add_argument(
        "--data", metavar="NPZ", type=Path, help="rows, X and y, that the model is measured on"
    )
    arguments = parser.parse_args()
    request = Request(
        path=arguments.file,
        schema=arguments.schema,
        name=arguments.name,
        fitted_on=arguments.fitted_on,
        card=arguments.card,
        allow_pickle=arguments.allow_pickle,
        rows=arguments.data,
    )
    run_service("trainer", Settings, partial(import_model, request=request))


if __name__ == "__main__":
    main()
