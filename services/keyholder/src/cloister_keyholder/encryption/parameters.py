"""The encryption parameters in client.specs.json, held to what is known to be safe.

They come from the service, which must not learn the inputs: a key holder that took them on trust
could be given parameters that hide nothing. Where a circuit needs evaluation keys, these are
encryptions of secret keys under each other: each is held to the same curve, at the dimension of the
key that it is encrypted under (for a GLWE key that of the LWE key in its coefficients). That
encrypting keys in a cycle does no harm is the circular security that TFHE assumes throughout
(https://eprint.iacr.org/2018/421).
"""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from cloister_keyholder.errors import UnsafeParameters
from cloister_shared.security import CURVE_BIAS, CURVE_SLOPE

SMALLEST_DIMENSION = 450
"""From which the security curve was fitted."""
MODULUS_BITS = 64
LARGEST_DIMENSION = 1 << 14
SMALLEST_LOG2_STD = 2 - MODULUS_BITS
"""Noise must cover the two lowest bits of a word: rounding would make less of it vanish."""
TOLERANCE = 1e-6
"""In log2 of the standard deviation, for the rounding of the variance in the specification."""
SEED_AND_BODY_WORDS = 3
"""A seeded ciphertext is a seed of two 64-bit words and a body of one."""
DATA_LIMIT = 64 << 20
"""The most bytes that the ciphertexts of one input or of one result may have."""
KEYS_LIMIT = 64
"""The most secret keys, and the most evaluation keys, of one circuit."""
ENVELOPE_LIMIT = 4096
"""The most bytes around a result's ciphertexts; Concrete's envelope has 264."""
EVALUATION_KEYS_LIMIT = 1 << 30
"""The most bytes that the evaluation keys of one circuit may have together."""


def smallest_safe_log2_std(dimension: int) -> float:
    """Return log2 of the smallest noise that gives 128 bits of security at an LWE dimension.

    The noise's standard deviation is relative to the modulus, 2^64. Meaningful from
    ``SMALLEST_DIMENSION`` upwards, where the curve was fitted.
    """
    return max(CURVE_SLOPE * dimension + CURVE_BIAS, SMALLEST_LOG2_STD)


class _Spec(BaseModel):
    """Strict: a member that is not known may change what the others mean."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
    )


class _Empty(_Spec):
    pass


class _Native(_Spec):
    native: _Empty


class _Modulus(_Spec):
    modulus: _Native


class _KeyParameters(_Spec):
    lwe_dimension: int
    integer_precision: Literal[64]
    key_type: Literal["binary"]


class _Key(_Spec):
    id: int


class _SecretKey(_Key):
    params: _KeyParameters


class _EvaluationKeyParameters(_Spec):
    level_count: int = Field(ge=1, le=MODULUS_BITS)
    base_log: int = Field(ge=1, le=MODULUS_BITS)
    variance: float = Field(gt=0, lt=1, allow_inf_nan=False)
    integer_precision: Literal[64]
    modulus: _Modulus
    key_type: Literal["binary"]
    input_lwe_dimension: int


class _BootstrapParameters(_EvaluationKeyParameters):
    glwe_dimension: int = Field(ge=1)
    polynomial_size: int = Field(ge=1)

    @property
    def output_lwe_dimension(self) -> int:
        return self.glwe_dimension * self.polynomial_size

    @property
    def words(self) -> int:
        """Bodies of all ciphertexts; masks come from a seed."""
        per_bit = self.level_count * (self.glwe_dimension + 1) * self.polynomial_size
        return self.input_lwe_dimension * per_bit


class _KeyswitchParameters(_EvaluationKeyParameters):
    output_lwe_dimension: int

    @property
    def words(self) -> int:
        """Bodies of all ciphertexts; masks come from a seed."""
        return self.input_lwe_dimension * self.level_count


class _EvaluationKey(_Key):
    """Encryptions of the bits of one secret key under another."""

    input_id: int
    output_id: int
    compression: Literal["seed"]


class _BootstrapKey(_EvaluationKey):
    params: _BootstrapParameters


class _KeyswitchKey(_EvaluationKey):
    params: _KeyswitchParameters


class _Keyset(_Spec):
    lwe_secret_keys: tuple[_SecretKey, ...]
    lwe_bootstrap_keys: tuple[_BootstrapKey, ...]
    lwe_keyswitch_keys: tuple[_KeyswitchKey, ...]
    packing_keyswitch_keys: tuple[()]

    @property
    def evaluation_keys(self) -> tuple[_BootstrapKey | _KeyswitchKey, ...]:
        return (*self.lwe_bootstrap_keys, *self.lwe_keyswitch_keys)

    @property
    def dimensions(self) -> dict[int, int]:
        """LWE dimension of every secret key, by its id."""
        return {key.id: key.params.lwe_dimension for key in self.lwe_secret_keys}


class _Shape(_Spec):
    dimensions: tuple[int, ...]


class _RawInfo(_Spec):
    shape: _Shape
    integer_precision: Literal[64]
    is_signed: Literal[False]


class _Encryption(_Spec):
    key_id: int
    variance: float = Field(gt=0, lt=1, allow_inf_nan=False)
    lwe_dimension: int
    modulus: _Modulus


class _Integer(_Spec):
    width: int = Field(ge=1, le=61)
    is_signed: bool
    mode: _Native


class _Encoding(_Spec):
    integer: _Integer


class Ciphertext(_Spec):
    """One row of integers under encryption."""

    abstract_shape: _Shape
    concrete_shape: _Shape
    integer_precision: Literal[64]
    encryption: _Encryption
    compression: Literal["seed", "none"]
    encoding: _Encoding


class _TypeInfo(_Spec):
    lwe_ciphertext: Ciphertext


class _Gate(_Spec):
    raw_info: _RawInfo
    type_info: _TypeInfo

    @property
    def ciphertext(self) -> Ciphertext:
        return self.type_info.lwe_ciphertext


class _CircuitSpec(_Spec):
    inputs: tuple[_Gate, ...]
    outputs: tuple[_Gate, ...]
    name: str = Field(min_length=1, max_length=256)


class ClientSpecs(_Spec):
    """client.specs.json of a circuit with one input row and one output row."""

    keyset: _Keyset
    circuits: tuple[_CircuitSpec, ...]
    tfhers_specs: dict[str, dict[str, tuple[None, ...]]] | None = Field(
        default=None, alias="tfhers_specs", exclude=True
    )
    """Concrete's bridge to TFHE-rs, which linear circuits do not use."""

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        keys = self.keyset
        if not self.needs_evaluation_keys and len(keys.lwe_secret_keys) != 1:
            raise ValueError(f"it has {len(keys.lwe_secret_keys)} secret keys; one is expected")
        if max(len(keys.lwe_secret_keys), len(keys.evaluation_keys)) > KEYS_LIMIT:
            raise ValueError(f"it has more than {KEYS_LIMIT} secret or evaluation keys")
        # Concrete takes an id for a place, without a look at the key that it finds there.
        kinds: tuple[tuple[_Key, ...], ...] = (
            keys.lwe_secret_keys,
            keys.lwe_bootstrap_keys,
            keys.lwe_keyswitch_keys,
        )
        for kind in kinds:
            if any(key.id != place for place, key in enumerate(kind)):
                raise ValueError("keys of a kind must have the ids 0, 1, 2, ... in this order")
        if len(self.circuits) != 1:
            raise ValueError(f"it has {len(self.circuits)} circuits; one is expected")
        circuit = self.circuits[0]
        if len(circuit.inputs) != 1 or len(circuit.outputs) != 1:
            raise ValueError("the circuit must have one input and one output")
        _check_shape(self.input, self.circuits[0].inputs[0], "seed", SEED_AND_BODY_WORDS)
        words = self.output.encryption.lwe_dimension + 1
        # Trees answer (1, n_outputs, n_trees).
        further: tuple[int, ...] = ()
        if self.needs_evaluation_keys:
            further = self.output_shape[2:3] or (1,)
            if further[0] < 1:
                raise ValueError("the circuit has no trees")
        _check_shape(self.output, self.circuits[0].outputs[0], "none", words, further)
        return self

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        dimensions = self.keyset.dimensions
        for dimension in dimensions.values():
            if not SMALLEST_DIMENSION <= dimension <= LARGEST_DIMENSION:
                raise ValueError(
                    f"the LWE dimension {dimension} is outside [{SMALLEST_DIMENSION}, "
                    f"{LARGEST_DIMENSION}], where the security of parameters is known"
                )
        for ciphertext in (self.input, self.output):
            encryption = ciphertext.encryption
            if dimensions.get(encryption.key_id) != encryption.lwe_dimension:
                raise ValueError("a ciphertext is not of the secret key")
            _check_noise(encryption.variance, encryption.lwe_dimension)
        for key in self.keyset.evaluation_keys:
            given = key.params
            of_input, of_output = dimensions.get(key.input_id), dimensions.get(key.output_id)
            if (of_input, of_output) != (given.input_lwe_dimension, given.output_lwe_dimension):
                raise ValueError("an evaluation key is not of its secret keys")
            if key.input_id == key.output_id:
                raise ValueError("an evaluation key encrypts a secret key under itself")
            _check_noise(given.variance, given.output_lwe_dimension)
        words = sum(key.params.words for key in self.keyset.evaluation_keys)
        if words * MODULUS_BITS // 8 > EVALUATION_KEYS_LIMIT:
            raise ValueError(f"its evaluation keys exceed {EVALUATION_KEYS_LIMIT} bytes")
        return self

    @property
    def needs_evaluation_keys(self) -> bool:
        """Whether the service can evaluate only with keys that are made here."""
        return bool(self.keyset.evaluation_keys)

    @property
    def circuit_name(self) -> str:
        """Name of the circuit."""
        return self.circuits[0].name

    @property
    def input(self) -> Ciphertext:
        """The encrypted input row."""
        return self.circuits[0].inputs[0].ciphertext

    @property
    def output(self) -> Ciphertext:
        """The encrypted scores."""
        return self.circuits[0].outputs[0].ciphertext

    @property
    def lwe_dimension(self) -> int:
        """Length of the secret key of inputs, in bits."""
        return self.input.encryption.lwe_dimension

    @property
    def n_features(self) -> int:
        """Values in an input row."""
        return self.input.abstract_shape.dimensions[1]

    @property
    def n_outputs(self) -> int:
        """Scores in an output row."""
        return self.output.abstract_shape.dimensions[1]

    @property
    def n_trees(self) -> int:
        """Scores of each output, which are to be added up."""
        return math.prod(self.output_shape[2:])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of a decrypted result: one row of scores, with an axis more for trees."""
        return self.output.abstract_shape.dimensions

    @property
    def input_range(self) -> tuple[int, int]:
        """Smallest and largest integer that the encoding of inputs holds."""
        integer = self.input.encoding.integer
        low = -(1 << (integer.width - 1)) if integer.is_signed else 0
        return low, low + (1 << integer.width) - 1

    @property
    def result_data_bytes(self) -> int:
        """Bytes of the ciphertexts in a result."""
        return _data_bytes(self.output)

    @property
    def result_limit(self) -> int:
        """The most bytes that a serialised result may have."""
        return self.result_data_bytes + ENVELOPE_LIMIT

    def program_info(self) -> bytes:
        """JSON for ``concrete.compiler.ProgramInfo``, of checked members alone."""
        return self.model_dump_json(by_alias=True).encode()


def read_specs(data: bytes) -> ClientSpecs:
    """Parse and check client.specs.json.

    Raises:
        UnsafeParameters: it is malformed, of a kind of circuit or encryption that is not known, or
            below 128 bits of security.
    """
    try:
        return ClientSpecs.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise UnsafeParameters(
            f"the encryption parameters of this model are refused: {where + ': ' if where else ''}"
            f"{message}. Nothing was encrypted; ask whoever runs the service"
        ) from None


def _data_bytes(ciphertext: Ciphertext) -> int:
    return math.prod(ciphertext.concrete_shape.dimensions) * MODULUS_BITS // 8


def _check_noise(variance: float, dimension: int) -> None:
    log2_std, safe = math.log2(variance) / 2, smallest_safe_log2_std(dimension)
    if log2_std < safe - TOLERANCE:
        raise ValueError(
            f"the noise is below 128 bits of security: log2 of its relative standard deviation is "
            f"{log2_std:.4f}, and must be at least {safe:.4f} for dimension {dimension}"
        )


def _check_shape(
    ciphertext: Ciphertext,
    gate: _Gate,
    compression: str,
    words: int,
    further: tuple[int, ...] = (),
) -> None:
    shape, concrete = ciphertext.abstract_shape.dimensions, ciphertext.concrete_shape.dimensions
    if ciphertext.compression != compression:
        raise ValueError(f"compression is {ciphertext.compression!r}, not {compression!r}")
    if len(shape) != 2 + len(further) or shape[0] != 1 or shape[1] < 1 or shape[2:] != further:
        raise ValueError(f"a row must have the shape {(1, 'n', *further)}, not {shape}")
    if concrete != (*shape, words) or gate.raw_info.shape.dimensions != concrete:
        raise ValueError(f"ciphertexts of shape {concrete} do not fit a row of shape {shape}")
    if _data_bytes(ciphertext) > DATA_LIMIT:
        raise ValueError(f"a row of shape {shape} would take more than {DATA_LIMIT} bytes")
