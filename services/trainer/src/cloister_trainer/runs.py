"""Flower runs through Flower's own command line: submit, follow, stop."""

import json
import logging
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister_shared import flower
from cloister_shared.errors import CloisterError

CONNECTION = "cloister"
COMMAND_SECONDS = 120.0
COMPLETED = "finished:completed"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunState:
    """What the SuperLink says of a run."""

    run_id: int
    status: str
    """``pending``, ``starting``, ``running`` or ``finished:...``."""
    details: str

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended, well or badly."""
        return self.status.startswith("finished")


class FlowerRuns:
    """Runs at one SuperLink."""

    def __init__(self, superlink: str, work_dir: Path, ca_path: Path | None = None) -> None:
        """Write Flower's configuration and the bundle under ``work_dir``.

        Args:
            superlink: host and port.
            work_dir: a scratch folder.
            ca_path: PEM file with the CA certificates it is verified with; None: without TLS.
        """
        self._home = work_dir / "flwr"
        self._bundle = work_dir / "bundle"
        self._home.mkdir(parents=True, exist_ok=True)
        self._bundle.mkdir(parents=True, exist_ok=True)
        security = (
            f"root-certificates = {_quoted(str(ca_path.resolve()))}"
            if ca_path
            else "insecure = true"
        )
        (self._home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n'
            f"[superlink.{CONNECTION}]\naddress = {_quoted(superlink)}\n{security}\n"
        )
        (self._bundle / "pyproject.toml").write_text(flower.BUNDLE)

    def environment(self) -> dict[str, str]:
        """Return the environment for Flower's programs, with this configuration."""
        return flower.flower_environment() | {"FLWR_HOME": str(self._home.resolve())}

    def submit(self) -> int:
        """Submit a run and return its id.

        Raises:
            CloisterError: the SuperLink refused it; the message has its reason.
        """
        answer = self._flwr("run", str(self._bundle), CONNECTION)
        return int(answer["run-id"])

    def state(self, run_id: int) -> RunState:
        """Return the state of a run.

        Raises:
            CloisterError: the SuperLink does not answer, or does not know the run.
        """
        states = _states(self._flwr("ls", CONNECTION, "--run-id", str(run_id)))
        if not states:
            raise CloisterError(f"the SuperLink does not know run {run_id}")
        return states[0]

    def stop_unfinished(self) -> None:
        """Stop the runs that an earlier, interrupted trainer left behind."""
        for state in _states(self._flwr("ls", CONNECTION)):
            if not state.is_finished:
                log.info(
                    "stopping run %d, left %s by an earlier trainer", state.run_id, state.status
                )
                try:
                    self.stop(state.run_id)
                except CloisterError:
                    # It may have ended by itself just now.
                    if not self.state(state.run_id).is_finished:
                        raise

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        self._flwr("stop", str(run_id), CONNECTION)

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        answer = self._call([*arguments, "--format", "json"])
        # A failed submission still exits 0; only the answer tells.
        if not answer.get("success"):
            reason = answer.get("error-message") or json.dumps(answer)
            raise CloisterError(f"flwr {arguments[0]} failed: {reason}")
        return answer

    def _call(self, arguments: Sequence[str]) -> dict[str, Any]:
        try:
            done = subprocess.run(  # noqa: S603
                ["flwr", *arguments],  # noqa: S607 - from PATH, as Flower starts its own programs
                env=self.environment(),
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
            answer = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            raise CloisterError(f"flwr {arguments[0]} took over {COMMAND_SECONDS:.0f} s") from None
        except ValueError:
            raise CloisterError(
                f"flwr {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}"
            ) from None
        if not isinstance(answer, dict):
            raise CloisterError(f"flwr {arguments[0]} gave an unknown answer")
        return answer


def _quoted(text: str) -> str:
    # What JSON makes of a string, TOML reads too, but for its escapes of rare characters.
    return json.dumps(text, ensure_ascii=False)


def _states(answer: dict[str, Any]) -> list[RunState]:
    return [
        RunState(int(run["run-id"]), run["status"], run.get("status-details") or "")
        for run in answer.get("runs", [])
    ]
