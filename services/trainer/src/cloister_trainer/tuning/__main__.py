"""Searches the setting that predicts well and costs little, writes it, and exits."""

import argparse

from cloister_shared.service import run_service
from cloister_trainer.tuning.report import print_report, write_files
from cloister_trainer.tuning.settings import Settings
from cloister_trainer.tuning.tuning import tune


def main() -> None:
    """Entry point of ``python -m cloister_trainer.tuning``."""
    parser = argparse.ArgumentParser(
        prog="python -m cloister_trainer.tuning",
        description="Search parameters, bits, inputs to leave out and pools of pixels on rows "
        "that are all in one place, by the settings in the environment; print what nothing beats "
        "in both score and cost, and write the cheapest within CLOISTER_TUNE_TOLERANCE of the best "
        "as settings to train and compile with.",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()

    def run(settings: Settings) -> None:
        tuned = tune(settings)
        write_files(tuned, settings)
        print_report(tuned, settings, as_json=arguments.json)

    run_service("trainer", Settings, run)


if __name__ == "__main__":
    main()
