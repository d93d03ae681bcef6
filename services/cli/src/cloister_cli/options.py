"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

HomeFolder = Annotated[
    Path,
    typer.Option(
        "--home",
        metavar="FOLDER",
        file_okay=False,
        envvar="CLOISTER_HOME",
        help="Where models, artifacts and the rest are kept.",
    ),
]
HOME = Path("cloister")
"""The default of ``HomeFolder``."""

Model = Annotated[
    str | None,
    typer.Option(
        envvar="CLOISTER_MODEL",
        metavar="NAME",
        help="Name of the model.",
        show_default="the one that came into use last",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for programs.")]
Url = Annotated[
    str | None,
    typer.Option(
        envvar="CLOISTER_URL",
        help="Where the service is reached.",
        show_default="http://127.0.0.1:8000",
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        envvar="CLOISTER_DATASET",
        metavar="NAME",
        help="digits, mnist, breast_cancer or diabetes: dealt to the sites.",
        show_default="digits",
    ),
]
Schema = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="Schema of the rows.",
        show_default="the dataset's, or schema.json of the first site",
    ),
]
Parameters = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="Of the estimator's constructor, '{\"C\": 0.1}'."),
]
Grid = Annotated[
    str | None,
    typer.Option(metavar="JSON", help='Values to search, \'{"C": [0.1, 1], "n_bits": [4, 8]}\'.'),
]
Estimator = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        help="scikit-learn class that sites fit, such as Ridge.",
        show_default="LogisticRegression",
    ),
]
Clients = Annotated[int, typer.Option(envvar="CLOISTER_CLIENTS", min=1, help="Number of sites.")]
MnistPath = Annotated[
    Path | None,
    typer.Option(
        envvar="MNIST_PATH",
        exists=True,
        dir_okay=False,
        help="MNIST as .npz; without one it is downloaded.",
    ),
]


def flags(**given: bool) -> list[str]:
    """Return ``--name`` of every flag that is set."""
    return [f"--{name}" for name, value in given.items() if value]
