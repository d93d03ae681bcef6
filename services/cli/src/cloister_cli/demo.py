"""The whole way on one machine, without Docker: deal, train, compile, serve, evaluate."""

from dataclasses import dataclass
from pathlib import Path

from cloister_cli.commands import asking, compiling, serving, showing
from cloister_cli.federation import HEALTHY_SECONDS, Training, environment, say, train
from cloister_cli.home import Home
from cloister_cli.processes import Processes, free_ports


@dataclass(frozen=True)
class Demo:
    """What to run."""

    dataset: str
    estimator: str | None
    """scikit-learn class that sites fit; None for the trainer's default."""
    clients: int
    samples: int
    """Held-out samples that are evaluated encrypted; 0 for all."""
    report: Path
    """Where the key holder's report is written as JSON."""
    mnist_path: Path | None
    stays: bool = False
    """Whether it goes on serving when it is done, until it is stopped."""


def run_demo(demo: Demo, folder: Path) -> None:
    """Run every service as a process on loopback, and stop them all, whatever happens.

    Args:
        demo: what to run.
        folder: an empty folder for data, models, artifacts and logs.

    Raises:
        ServiceFailedError: a service ended badly.
    """
    home, model = Home(folder / "home"), demo.dataset
    training = Training(
        model=model,
        clients=demo.clients,
        settings={"dataset": demo.dataset, "estimator": demo.estimator},
        mnist_path=demo.mnist_path,
    )
    port, page_port = free_ports(2)
    url, page = (f"http://127.0.0.1:{number}" for number in (port, page_port))
    with Processes(folder, environment(folder, settings=False)) as processes:
        processes.run("console", showing(home, port=page_port, url=url))
        say(f"a page to watch it, while it runs: {page}")

        train(training, home, processes, folder)

        say("compiling to run on ciphertexts, and proving it")
        processes.run("compiler", compiling(home, model)).wait_done([])

        say("serving, and evaluating held-out samples encrypted")
        # Nobody else sends it anything.
        command = serving(home, port=port, metrics_port=0, drain_seconds=0, cors_origins=page)
        service = processes.run("inference", command)
        service.wait_healthy(f"{url}/v2/health/ready", HEALTHY_SECONDS)
        evaluating = asking(
            home,
            model,
            *("evaluate", "--samples", str(demo.samples)),
            *("--report", str(demo.report.resolve())),
            url=url,
        )
        processes.run("keyholder", evaluating).wait_done([service])
        if demo.stays:
            say(f"done, and still serving: open {page}; Ctrl-C ends it")
            service.wait_done([])
        else:
            say("done. With --stay it goes on serving, and so does its page")
