"""Prints the schema of a dataset that can be dealt."""

import argparse
import sys
from functools import partial

from cloister_shared.datasets import DATASETS, schema
from cloister_shared.schema import DatasetSchema
from cloister_shared.service import ServiceSettings, run_service
from cloister_shared.tables import print_features


class _NoSettings(ServiceSettings):
    """It needs none."""


def show(arguments: argparse.Namespace, _settings: ServiceSettings) -> None:
    """Write a schema to standard output, for people or as JSON.

    Raises:
        CloisterError: there is no such dataset.
    """
    data = schema(arguments.name)
    if arguments.json:
        sys.stdout.write(data.model_dump_json(indent=2, exclude_none=True) + "\n")
        return
    sys.stdout.write(f"{data.dataset}, a {data.task}: {_predicts(data)}\n\n")
    print_features(data)


def _predicts(data: DatasetSchema) -> str:
    if data.target is not None:
        return f"a target from {data.target.low:g} to {data.target.high:g}"
    return f"classes {', '.join(map(str, data.classes))}"


def main() -> None:
    """Entry point of ``python -m cloister_dealer.schemas``."""
    parser = argparse.ArgumentParser(
        prog="python -m cloister_dealer.schemas",
        description="Print the schema of a dataset that is known by name.",
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(DATASETS))
    parser.add_argument("--json", action="store_true", help="print JSON, as in a schema file")
    run_service("dealer", _NoSettings, partial(show, parser.parse_args()))


if __name__ == "__main__":
    main()
