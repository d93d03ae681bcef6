"""Trains where all rows are in one place, publishes the model, and exits."""

import argparse

from cloister_shared.service import run_service
from cloister_trainer.local.report import print_report
from cloister_trainer.local.settings import Settings
from cloister_trainer.local.training import train_locally


def main() -> None:
    """Entry point of ``python -m cloister_trainer.local``."""
    parser = argparse.ArgumentParser(
        prog="python -m cloister_trainer.local",
        description="Train one model on rows that are all in one place, by the settings in the "
        "environment, and publish it. With CLOISTER_GRID, search the best parameters first.",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()

    def train(settings: Settings) -> None:
        print_report(train_locally(settings), as_json=arguments.json)

    run_service("trainer", Settings, train)


if __name__ == "__main__":
    main()
