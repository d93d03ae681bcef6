"""The cloister command."""

import json as json_module
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from cloister_cli import models, schemas
from cloister_cli.commands import (
    asking,
    compiling,
    importing,
    serving,
    showing,
    training_here,
    tuning,
)
from cloister_cli.demo import Demo, run_demo
from cloister_cli.federation import Training, environment, train
from cloister_cli.home import Home
from cloister_cli.options import (
    HOME,
    Clients,
    Dataset,
    Estimator,
    Grid,
    HomeFolder,
    Json,
    MnistPath,
    Model,
    Parameters,
    Schema,
    Url,
    flags,
)
from cloister_cli.processes import Processes, ServiceFailedError, run_here

app = typer.Typer(
    help="Train across sites without moving their data; predict without seeing the input.",
    epilog="Everything is kept in one folder, --home or CLOISTER_HOME, ./cloister by default: so "
    "`cloister train`, `cloister compile` and `cloister serve` need no paths. Settings without an "
    "option are environment variables, CLOISTER_STRATEGY for example.\n\n"
    "Exit codes: 0 done; 1 failed, with the reason on standard error; 2 wrong usage; 130 "
    "interrupted; 143 terminated. A service that is told to stop ends with 0. Results "
    "are on standard output, everything else on standard error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models.app, name="models")
app.add_typer(schemas.app, name="schema")


@app.command("train")
def train_model(  # noqa: PLR0913, PLR0917 - each is an option
    home: HomeFolder = HOME,
    model: Annotated[
        str | None,
        typer.Option(
            envvar="CLOISTER_MODEL",
            metavar="NAME",
            help="Name under which it is published.",
            show_default="the dataset's",
        ),
    ] = None,
    dataset: Dataset = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            metavar="PATH",
            help="Rows in the place of a dataset: a site's own folder with its schema.json, once "
            "for every site; or one file, dealt to --clients sites.",
        ),
    ] = None,
    schema: Schema = None,
    estimator: Estimator = None,
    parameters: Parameters = None,
    clients: Clients = 3,
    rounds: Annotated[
        str | None, typer.Option(metavar="N", help="Rounds of training.", show_default="5")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train another version of what is trained already.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Without sites: fit the rows of one file, all together.")
    ] = False,
    grid: Grid = None,
    mnist_path: MnistPath = None,
    json: Json = False,
) -> None:
    """Train a model across sites that are simulated on this machine, or in one place.

    Rows of a dataset, or of a file, are dealt to the sites, and a part is held out for `cloister
    evaluate`; or each site has rows of its own. With --local there are no sites, and --grid
    searches parameters first.

    Example: cloister train --dataset diabetes --estimator Ridge --clients 4
    """
    place = Home.at(home)
    sites, file = _rows(data or [])
    if schema is None and sites:
        schema = sites[0] / "schema.json"
    elif schema is None and file and not local:
        raise typer.BadParameter("of a file needs --schema", param_hint="--data")
    elif schema is not None and not data:
        raise typer.BadParameter("needs --data, the rows", param_hint="--schema")
    name = model or (_dataset_of(schema) if schema else dataset) or "digits"
    settings = {
        "dataset": dataset,
        "schema_path": schema and schema.resolve(),
        "data_path": file and file.resolve(),
        "estimator": estimator,
        "estimator_parameters": parameters,
        "rounds": rounds,
        "retrain": True if retrain else None,
    }
    if local:
        if file is None:
            raise typer.BadParameter("needs --data, one file", param_hint="--local")
        command = training_here(place, *flags(json=json), model=name, grid=grid, **settings)
        command.become()
    if grid is not None:
        raise typer.BadParameter("needs --local", param_hint="--grid")
    training = Training(name, clients, sites, settings, mnist_path)

    def run(scratch: Path) -> None:
        with Processes(scratch, environment(scratch, settings=True)) as processes:
            train(training, place, processes, scratch)

    _run_processes("the training", run)
    version = place.current(place.models, name)
    typer.echo(f"model {name}, version {version}, is in use in {place.models}", err=True)
    if json:
        typer.echo(json_module.dumps({"name": name, "version": version}))


@app.command()
def tune(  # noqa: PLR0913, PLR0917 - each is an option
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="Rows in one place, with their labels: CSV, Parquet or .npz.",
        ),
    ],
    dataset: Dataset = None,
    schema: Schema = None,
    estimator: Estimator = None,
    parameters: Parameters = None,
    grid: Grid = None,
    rows: Annotated[
        str | None,
        typer.Option(metavar="N", help="Rows searched with; 0 for all.", show_default="10000"),
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option(
            metavar="X",
            help="Accuracy that may be lost for a cheaper model; of a regression a share of the "
            "error.",
            show_default="0.005",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(file_okay=False, metavar="FOLDER", help="Gets what is chosen.")
    ] = Path("tuned"),
    json: Json = False,
) -> None:
    """Search parameters, bits, inputs to leave out and pools of pixels: score against cost.

    Prints what nothing beats in both, and writes the cheapest within the tolerance as settings.

    Example: cloister tune patients.csv --schema patients.json
    """
    tuning(
        *flags(json=json),
        data_path=file,
        dataset=dataset,
        schema_path=schema,
        estimator=estimator,
        estimator_parameters=parameters,
        grid=grid,
        tune_rows=rows,
        tune_tolerance=tolerance,
        tuned_dir=output,
    ).become()


@app.command(
    "import",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def import_model(context: typer.Context, home: HomeFolder = HOME) -> None:
    """Publish a model that was trained elsewhere; `cloister import --help` tells its options.

    Example: cloister import tumours.skops --schema breast_cancer --name tumours
    """
    importing(Home.at(home), *context.args).become()


@app.command("compile")
def compile_model(
    home: HomeFolder = HOME,
    model: Model = None,
    bits: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Bits to which inputs and weights are quantised, 2 to 8; auto takes the cheapest.",
            show_default="8",
        ),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Compile again what was deleted.")
    ] = False,
    json: Json = False,
) -> None:
    """Compile a trained model to run on ciphertexts, prove it, and put it into use.

    Example: cloister compile --bits auto
    """
    place = Home.at(home)
    name = model or Home.latest(place.models)
    if name is None:
        _fail(f"there is no model in {place.models}: `cloister train` trains one")
    again = True if retrain else None
    command = compiling(place, name, *flags(json=json), bits=bits, retrain=again)

    def run(scratch: Path) -> None:
        code = run_here(command, environment(scratch, settings=True))
        if code:
            raise typer.Exit(code)

    _run_processes("the compilation", run)


@app.command()
def serve(
    home: HomeFolder = HOME,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; without API keys loopback's alone.",
            show_default="127.0.0.1",
        ),
    ] = None,
    port: Annotated[
        str | None,
        typer.Option(metavar="N", help="TCP port; 0 takes a free one.", show_default="8000"),
    ] = None,
) -> None:
    """Serve every compiled model of the home to key holders, until it is stopped.

    Example: cloister serve --port 8000
    """
    serving(Home.at(home), host=host, port=port).become()


@app.command()
def predict(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.csv", help="Rows of raw values, one a line.")
    ],
    home: HomeFolder = HOME,
    model: Model = None,
    url: Url = None,
    proba: Annotated[
        bool, typer.Option("--proba", help="Probabilities of the classes instead.")
    ] = False,
    json: Json = False,
) -> None:
    """Predict rows encrypted: the service, which must be running, sees ciphertexts alone.

    Example: cloister predict sample.csv
    """
    place = Home.at(home)
    name = model or Home.latest(place.artifacts)
    asking(place, name, "predict", str(file), *flags(proba=proba, json=json), url=url).become()


@app.command()
def console(
    home: HomeFolder = HOME,
    port: Annotated[
        str | None, typer.Option(metavar="N", help="TCP port.", show_default="8080")
    ] = None,
    url: Url = None,
) -> None:
    """Serve a page to watch trainings, try predictions and see which versions serve.

    The service at --url must let the page in: CLOISTER_CORS_ORIGINS=http://127.0.0.1:8080.

    Example: cloister console
    """
    showing(Home.at(home), port=port, url=url).become()


@app.command()
def evaluate(
    home: HomeFolder = HOME,
    model: Model = None,
    url: Url = None,
    samples: Annotated[
        str | None,
        typer.Option(metavar="N", help="Held-out samples sent; 0 for all.", show_default="200"),
    ] = None,
    wait: Annotated[
        str,
        typer.Option(
            envvar="CLOISTER_WAIT_SECONDS",
            metavar="SECONDS",
            help="How long the service and the model are waited for.",
        ),
    ] = "60",
    json: Json = False,
) -> None:
    """Measure a model on held-out samples: as floats, as integers in the clear, and encrypted.

    Fails if any encrypted result differs from the same integers in the clear.

    Example: cloister evaluate --samples 60
    """
    place = Home.at(home)
    name = model or Home.latest(place.artifacts)
    settings = {"url": url, "evaluate_samples": samples, "wait_seconds": wait}
    asking(place, name, "evaluate", *flags(json=json), **settings).become()


@app.command()
def report(
    home: HomeFolder = HOME,
    model: Model = None,
    version: Annotated[
        str | None, typer.Option(metavar="N", help="Of the model.", show_default="the one in use")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the HTML goes; - for standard output.",
            show_default="reports/NAME.html in the home",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="Of a service, to tell of a model of which the home has no artifact.",
            envvar="CLOISTER_URL",
            show_default="http://127.0.0.1:8000",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write a training and its last evaluation as one HTML file, to be sent to others.

    Curves of the training, privacy spent, what was compiled and proven, and of the evaluation
    scores, confusion matrices, times and bytes. It holds no row and no key, loads nothing from
    anywhere and runs nothing. Nothing need run for it where the home has the compiled model.

    Example: cloister report --output digits.html
    """
    place = Home.at(home)
    name = model or Home.latest(place.artifacts)
    if name is None:
        _fail(f"there is no compiled model in {place.artifacts}: name one with --model")
    page = place.page(name) if output is None else output
    given = ["--output", str(page), *(["--version", version] if version else [])]
    if place.has(place.artifacts, name):
        given += ["--artifacts", str(place.artifacts)]
    asking(place, name, "report", *given, *flags(force=force, json=json), url=url).become()


@app.command()
def demo(
    dataset: Dataset = None,
    estimator: Estimator = None,
    clients: Clients = 3,
    samples: Annotated[
        int, typer.Option(min=0, help="Held-out samples evaluated encrypted; 0 for all.")
    ] = 200,
    report: Annotated[
        Path, typer.Option(dir_okay=False, help="Where the report is written as JSON.")
    ] = Path("report.json"),
    mnist_path: MnistPath = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Go on serving, with a page to look at, until Ctrl-C.")
    ] = False,
) -> None:
    """Run the whole way as processes on this machine, and end with the key holder's report.

    Nothing stays but the report. Other settings of the environment are not used.

    Example: cloister demo --dataset breast_cancer
    """
    chosen = Demo(dataset or "digits", estimator, clients, samples, report, mnist_path, stay)
    _run_processes("the demo", lambda folder: run_demo(chosen, folder))


def _run_processes(what: str, run: Callable[[Path], None]) -> None:
    """Run services in a temporary folder, and exit 1 where one of them ends badly."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup ignores the last, and is to be obeyed.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)
    with tempfile.TemporaryDirectory(prefix="cloister-") as folder:
        try:
            run(Path(folder))
        except ServiceFailedError as error:
            _fail(f"\n{what} failed: {error}")


def _rows(data: list[Path]) -> tuple[tuple[Path, ...], Path | None]:
    """Return the sites' folders, or the one file that is to be dealt."""
    files = [path for path in data if not path.is_dir()]
    if files and len(data) > 1:
        raise typer.BadParameter("takes one file, or folders alone", param_hint="--data")
    return (tuple(data), None) if not files else ((), files[0])


def _dataset_of(schema: Path) -> str | None:
    """Return the name in a schema; what is wrong with one the trainer tells."""
    try:
        name = json_module.loads(schema.read_bytes()).get("dataset")
    except (OSError, ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of ``cloister``."""
    app(prog_name="cloister")


if __name__ == "__main__":
    main()
