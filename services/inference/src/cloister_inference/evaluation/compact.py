"""The compact form of a version's messages; see ``cloister_shared.compact``."""

from cloister_inference.evaluation.evaluator import Evaluator
from cloister_inference.evaluation.native import NativeCircuit, expand, pack
from cloister_inference.forms import Form, Forms
from cloister_inference.problems import MalformedRequestError
from cloister_shared.artifact import Circuit
from cloister_shared.compact import Compact


class CompactCircuit:
    """A native circuit whose inputs or results are compact; may be called from any threads."""

    def __init__(self, circuit: NativeCircuit, sizes: Circuit, compact: Compact) -> None:
        """Take a circuit.

        Args:
            circuit: evaluates.
            sizes: of its messages in Concrete's form.
            compact: how far they are rounded.
        """
        self._circuit = circuit
        self._n_features = sizes.n_features
        self._n_outputs = sizes.n_outputs
        self._dimension = sizes.lwe_dimension
        self.compact = compact
        self._input_bytes = compact.input_bytes(sizes.n_features)

    def check(self, payload: bytes, index: int) -> None:
        """Raise unless ``payload`` has the length of a compact input; each value of it is one.

        Args:
            payload: from anywhere.
            index: its place in the batch, for the message.

        Raises:
            MalformedRequestError: it has another length.
        """
        if len(payload) != self._input_bytes:
            raise MalformedRequestError(
                f"element {index} has {len(payload)} bytes; a compact input of this model has "
                f"{self._input_bytes}"
            )

    def evaluate(self, payload: bytes, forms: Forms) -> bytes:
        """Evaluate one input and return its result.

        Args:
            payload: in the form of ``forms.input``, and checked.
            forms: one of them, or both, is compact.
        """
        seeded: bytes | memoryview = self._circuit.seeded(payload)
        if forms.input == Form.COMPACT:
            seeded = expand(payload, self._n_features, self.compact.body_bits)
        if forms.output == Form.CONCRETE:
            return self._circuit.evaluate_seeded(seeded)
        ciphertexts = self._circuit.evaluate_seeded(seeded, bare=True)
        return pack(ciphertexts, self._n_outputs, self._dimension, self.compact.word_bits)


def compact_circuit(evaluator: Evaluator, sizes: Circuit) -> CompactCircuit | None:
    """Return what evaluates compact messages, where the artifact and the evaluator allow it."""
    if sizes.compact is None or not isinstance(evaluator, NativeCircuit):
        return None
    return CompactCircuit(evaluator, sizes, sizes.compact)
