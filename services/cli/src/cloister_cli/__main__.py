"""The cloister command."""

import signal
import tempfile
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from cloister_cli.demo import Demo, run_demo
from cloister_cli.processes import ServiceFailedError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def cloister() -> None:
    """Train across sites without moving their data; predict without seeing the input."""


@app.command()
def demo(
    dataset: Annotated[
        str, typer.Option(help="digits, mnist, breast_cancer or diabetes.")
    ] = "digits",
    estimator: Annotated[
        str, typer.Option(help="scikit-learn class that sites fit, such as Ridge for diabetes.")
    ] = "LogisticRegression",
    clients: Annotated[int, typer.Option(min=1, help="Number of sites.")] = 3,
    samples: Annotated[
        int, typer.Option(min=0, help="Held-out samples evaluated encrypted; 0 for all.")
    ] = 200,
    report: Annotated[
        Path, typer.Option(dir_okay=False, help="Where the report is written as JSON.")
    ] = Path("report.json"),
    mnist_path: Annotated[
        Path | None,
        typer.Option(envvar="MNIST_PATH", exists=True, dir_okay=False, help="MNIST as .npz."),
    ] = None,
) -> None:
    """Run the whole way as processes on this machine, and end with the key holder's report."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # nohup ignores the one, and is to be obeyed.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)
    with tempfile.TemporaryDirectory(prefix="cloister-demo-") as folder:
        try:
            run_demo(Demo(dataset, estimator, clients, samples, report, mnist_path), Path(folder))
        except ServiceFailedError as error:
            typer.echo(f"\nthe demo failed: {error}", err=True)
            raise typer.Exit(1) from None


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of ``cloister``."""
    app()


if __name__ == "__main__":
    main()
