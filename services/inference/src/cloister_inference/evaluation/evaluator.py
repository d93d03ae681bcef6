"""Which code evaluates a version: the native kernels where they are seen to agree with Concrete."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from cloister_inference.evaluation.native import NativeCircuit, kernels
from cloister_shared.errors import CloisterError
from cloister_shared.linear import LinearCircuit

EvaluatorSetting = Literal["auto", "native", "concrete"]

COMPARED = 4
"""Random inputs that go through both evaluators when a version is loaded. A wrong weight, bias or
word changes the result of any one of them, but for a chance of 2^-64."""

NEEDS_KEYS = "the circuit needs evaluation keys, and the native evaluator is for linear circuits"

log = logging.getLogger(__name__)


class Evaluator(Protocol):
    """Evaluates serialised inputs; may be called from any number of threads."""

    @property
    def name(self) -> str:
        """``native`` or ``concrete``."""

    def evaluate(self, payload: bytes) -> bytes:
        """Evaluate one serialised input of the circuit's form; return the serialised output."""


@dataclass(frozen=True)
class Choice:
    """The evaluator that serves a version."""

    evaluator: Evaluator
    reason: str
    """Why this one."""


def choose_evaluator(
    setting: EvaluatorSetting,
    concrete: Evaluator,
    linear: LinearCircuit | None,
    data_offset: int,
    random_payload: Callable[[], bytes],
) -> Choice:
    """Return the native evaluator if its output equals Concrete's byte by byte, else Concrete's.

    No key is needed to compare them: random bytes are ciphertexts as good as any others.

    Args:
        setting: what is asked for; ``native`` refuses to serve by anything else.
        concrete: Concrete's run of the circuit.
        linear: the circuit's integers; None where it is not linear or they are not published.
        data_offset: where, in a serialised input, the seeded ciphertexts begin.
        random_payload: makes a serialised input of random ciphertexts.

    Raises:
        CloisterError: the native evaluator is asked for and cannot serve.
    """
    if setting == "concrete":
        return Choice(concrete, "CLOISTER_EVALUATOR=concrete")
    available = kernels()
    if linear is None:
        problem = "the artifact holds no integers of a linear circuit"
    elif not available:
        problem = "the native evaluator was not built on this machine"
    else:
        payloads = [random_payload() for _ in range(COMPARED)]
        native = _agreeing(concrete, linear, data_offset, available[0], payloads)
        if native:
            return Choice(native, f"{native.kernel}: equal to Concrete's run on {COMPARED} inputs")
        problem = "its output differs from Concrete's run: compile the model again"
    if setting == "native":
        raise CloisterError(f"CLOISTER_EVALUATOR=native, but {problem}")
    log.warning("Concrete's run serves, since %s", problem)
    return Choice(concrete, problem)


def keyed_evaluator(setting: EvaluatorSetting, concrete: Evaluator) -> Choice:
    """Return Concrete's evaluator for a circuit that needs evaluation keys, and so is not linear.

    Raises:
        CloisterError: the native evaluator is asked for.
    """
    if setting == "native":
        raise CloisterError(f"CLOISTER_EVALUATOR=native, but {NEEDS_KEYS}")
    return Choice(concrete, NEEDS_KEYS)


def _agreeing(
    concrete: Evaluator,
    linear: LinearCircuit,
    data_offset: int,
    kernel: str,
    payloads: list[bytes],
) -> NativeCircuit | None:
    """Return the native circuit if it agrees with Concrete's run on all payloads."""
    results = [concrete.evaluate(payload) for payload in payloads]
    try:
        bare = NativeCircuit(linear, data_offset, kernel)
        # What is around the ciphertexts is the same for all outputs, and read off the first.
        head, found, tail = results[0].partition(bare.evaluate(payloads[0]))
        native = NativeCircuit(linear, data_offset, kernel, (head, tail))
        if found and [native.evaluate(payload) for payload in payloads] == results:
            return native
    except ValueError as error:
        log.warning("the circuit's integers do not fit its inputs: %s", error)
    return None
