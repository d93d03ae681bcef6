"""What the compiler says of an artifact and the inference service relies on."""

from pydantic import BaseModel, ConfigDict, Field

from cloister_shared.compact import Compact

CLIENT_ZIP = "client.zip"
"""Concrete ML's client side, for the key holder; the model card is added to it as card.json, and
circuit.json where the circuit does not take every feature of the card."""
CIRCUIT = "circuit.json"
"""In client.zip: ``{"features": [...]}``, the ascending indices of the card's features that the
circuit takes; without it, it takes all. Of trees also ``"edges": [[...], ...]``, ascending, of each
feature: what is encrypted is how many of them lie below it; and of boosted trees ``"base": [...]``,
what the sum of each output's trees is added to."""
SERVER_ZIP = "server.zip"
"""Concrete ML's server side, as MLIR."""
REFERENCE = "reference.npz"
"""The circuit in the clear: a ``Reference``, or of trees a ``TreeReference``; absent where its
publication is switched off."""
LINEAR = "linear.npz"
"""The integers of a linear circuit, for the service's native evaluator; absent for others."""
INPUT_TEMPLATE = "input_template.bin"
"""A serialised input with zeros for its data: every other byte of an input must equal it."""
EVALUATION_KEYS = "evaluation_keys.bin"
"""The serialised empty set of evaluation keys, for circuits that need none."""
EVALUATION_KEY_FORM = "evaluation_key_form.bin"
"""The bytes that all sets of evaluation keys share, in order, for circuits that need keys."""
CARD = "card.json"
WEIGHTS = "weights.npz"
"""Of a linear model, in the registry of models."""
TREES = "trees.npz"
"""Of a tree or a forest, likewise."""


class ByteRange(BaseModel):
    """A stretch of bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    offset: int = Field(ge=0)
    length: int = Field(ge=1)


class EvaluationKeyForm(BaseModel):
    """The form of all serialised sets of evaluation keys of a circuit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(ge=1)
    """Bytes of every set."""
    variable: tuple[ByteRange, ...] = Field(min_length=1)
    """The keys' own bytes, ascending and apart, of any value; all others are in the form's file."""


class Circuit(BaseModel):
    """Parameters and sizes of a compiled circuit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_features: int = Field(ge=1)
    """Features that the circuit takes."""
    n_card_features: int = Field(ge=1)
    """Features of the model; those that a circuit does not take have no weight in it, or no tree
    compares them."""
    n_outputs: int = Field(ge=1)
    bits_inputs: int = Field(ge=1)
    bits_weights: int = Field(ge=1)
    """Of trees: bits of their leaves' values."""
    width: int = Field(ge=1)
    """Bits of the integer scores, the sign included where there is one."""
    signed: bool
    """Whether the integer scores have a sign."""
    lwe_dimension: int = Field(ge=1)
    input_bytes: int = Field(ge=1)
    """Length of every serialised input."""
    input_data_offset: int = Field(ge=0)
    """Where, in a serialised input, the ciphertexts' own bytes begin."""
    input_data_bytes: int = Field(ge=1)
    output_bytes: int = Field(ge=1)
    """Length of every serialised output."""
    compact: Compact | None = None
    """How far messages may be rounded; None where they are exchanged in Concrete's form alone."""
    evaluation_keys: EvaluationKeyForm | None = None
    """What key holders must upload before they query; None where nothing is needed."""


class Verification(BaseModel):
    """How many probes went through real encrypted execution, each equal to the clear result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extreme: int = Field(ge=1)
    boundary: int = Field(ge=1)
    random: int = Field(ge=1)


class Agreement(BaseModel):
    """How often the quantised circuit predicts what the float model predicts, on synthetic rows.

    The rows are made from the declared bounds and the weights: no data, and so no accuracy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probes: int = Field(ge=1)
    """Synthetic rows."""
    differing: int = Field(ge=0)
    """Rows that the two predict differently."""
    share: float = Field(ge=0, le=1)
    """``differing / probes``."""


class ArtifactDetails(BaseModel):
    """The details in an artifact's manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_version: int | None = Field(ge=1)
    """Of the model this was compiled from; None for a fitted estimator that no registry holds."""
    model_digest: str
    """Digest of the files, or of the estimator's arrays, that this was compiled from."""
    client_digest: str
    """SHA-256 of client.zip: a ciphertext names it, and another one's is refused."""
    circuit: Circuit
    verification: Verification
    agreement: Agreement | None = None
    """None for a circuit that was not compared with a float model."""
    floor_ms: float | None = Field(default=None, gt=0)
    """Estimated milliseconds that one evaluation takes at least, on one core with AVX-512; None
    for a circuit that is not linear."""
    libraries: dict[str, str]
