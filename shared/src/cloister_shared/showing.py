"""Everything about one version of a model or an artifact, for people and programs."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloister_shared.artifact import CARD
from cloister_shared.card import ModelCard, RoundMetrics, read_card
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry, Version
from cloister_shared.registry_commands import print_json, summary
from cloister_shared.tables import print_features, print_table

if TYPE_CHECKING:
    from cloister_shared.registry_commands import Commands

Lines = list[tuple[str, str]]
"""What is told, each with its name."""


def add_show(commands: "Commands", what: str, told: str) -> None:
    """Add ``show`` to the commands of a program.

    Args:
        commands: of the program's parser.
        what: one thing of which there are versions, "a model" for example.
        told: what is printed of it.
    """
    show = commands.add_parser(
        "show",
        help=f"print all that is known of {what}",
        description=f"Verify the files of {what}, and print {told}.",
    )
    show.add_argument("name", metavar="NAME", help="under which it is published")
    show.add_argument(
        "version",
        metavar="VERSION",
        type=int,
        nargs="?",
        help="its number (default: the version in use)",
    )
    show.add_argument("--json", action="store_true", help="print JSON")


def show_one(
    registry: Registry,
    name: str,
    number: int | None,
    *,
    as_json: bool,
    more: Callable[[Version], Lines] = lambda _: [],
) -> None:
    """Print all that is known of one version, once its files are verified.

    Args:
        registry: where it is.
        name: under which it is published.
        number: of the version; None for the one in use.
        as_json: print the summary, the card and the manifest as JSON.
        more: gives what there is to tell people beside the card.

    Raises:
        CloisterError: there is no such version, or it is damaged.
    """
    number = registry.current(name) if number is None else number
    if number is None:
        raise CloisterError(f"no version of {name!r} is in use; `list` names what there is")
    version = registry.open(name, number)
    version.verify()
    card = read_card(version.file(CARD))
    if as_json:
        manifest = version.manifest.model_dump(mode="json")
        about = summary(registry, name, number)
        print_json({**about, "card": card.model_dump(mode="json"), "manifest": manifest})
        return
    in_use = ", in use" if registry.current(name) == number else ""
    sys.stdout.write(f"{name}, version {number}{in_use}\n\n")
    print_table([*_about(card), *_training(card), *more(version)])
    if card.rounds:
        sys.stdout.write("\n")
        print_table([_ROUND_COLUMNS, *map(_round, card.rounds)])
    # Those of an image are its pixels.
    if card.data.image_shape is None:
        sys.stdout.write("\n")
        print_features(card.data)


def _about(card: ModelCard) -> Lines:
    data = card.data
    predicts = f"classes {', '.join(map(str, data.classes))}"
    if data.target is not None:
        predicts = f"a target from {data.target.low:g} to {data.target.high:g}"
    return [
        ("estimator", card.estimator),
        ("parameters", json.dumps(card.parameters)),
        ("data", f"{data.dataset}, a {data.task}: {data.n_features} features"),
        ("predicts", predicts),
        ("out of bounds", card.out_of_bounds),
        ("standardised", "yes" if card.standardised else "no"),
        ("pruned", f"{100 * card.pruned:g} % of the inputs" if card.pruned else "no"),
    ]


def _training(card: ModelCard) -> Lines:
    federation = card.federation
    measured = []
    if card.final is not None:
        told = _measured(card.final.accuracy, card.final.absolute_error)
        measured.append(("validation", told))
    if federation is None:
        return [("trained", "in one place"), *measured]
    rows = [("trained", f"across sites, {federation.strategy}, {len(card.rounds)} rounds")]
    rows.append(("secure aggregation", "yes" if federation.secure_aggregation else "no"))
    spent = federation.differential_privacy
    privacy = f"epsilon {spent.epsilon:.3g} at delta {spent.delta:g}" if spent else "no"
    rows.append(("differential privacy", privacy))
    return [*rows, *measured]


_ROUND_COLUMNS = (
    "ROUND",
    "SITES",
    "FAILED",
    "ROWS",
    "RECEIVED MODEL",
    "LOSS",
    "EPSILON",
    "SECONDS",
)


def _round(measured: RoundMetrics) -> tuple[str, ...]:
    def told(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    return (
        str(measured.round),
        str(measured.sites),
        str(measured.failures),
        str(measured.examples or "-"),
        _measured(measured.accuracy, measured.absolute_error),
        told(measured.loss),
        told(measured.epsilon),
        f"{measured.seconds:.1f}",
    )


def _measured(accuracy: float | None, absolute_error: float | None) -> str:
    if absolute_error is not None:
        return f"mean absolute error {absolute_error:.4g}"
    return "-" if accuracy is None else f"accuracy {accuracy:.4f}"
