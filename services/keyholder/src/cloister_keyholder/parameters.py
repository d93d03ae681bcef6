"""The encryption parameters in client.specs.json, held to what is known to be safe.

They come from the service, which must not learn the inputs: a key holder that took them on trust
could be given parameters that hide nothing.
"""

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from cloister_keyholder.errors import UnsafeParameters

# The 128-bit curve for binary keys of the security curves that Concrete 2.10 optimises with: the
# smallest standard deviation of the noise, relative to the modulus, that is safe for a dimension.
# Source: https://github.com/zama-ai/concrete, tools/parameter-curves
CURVE_SLOPE = -0.025696778711484593
CURVE_BIAS = 2.675931372549016
SMALLEST_DIMENSION = 450
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


class _SecretKey(_Spec):
    id: int
    params: _KeyParameters


class _Keyset(_Spec):
    lwe_secret_keys: tuple[_SecretKey, ...]
    lwe_bootstrap_keys: tuple[Any, ...]
    lwe_keyswitch_keys: tuple[Any, ...]
    packing_keyswitch_keys: tuple[Any, ...]


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


class _Ciphertext(_Spec):
    abstract_shape: _Shape
    concrete_shape: _Shape
    integer_precision: Literal[64]
    encryption: _Encryption
    compression: Literal["seed", "none"]
    encoding: _Encoding


class _TypeInfo(_Spec):
    lwe_ciphertext: _Ciphertext


class _Gate(_Spec):
    raw_info: _RawInfo
    type_info: _TypeInfo

    @property
    def ciphertext(self) -> _Ciphertext:
        return self.type_info.lwe_ciphertext


class _CircuitSpec(_Spec):
    inputs: tuple[_Gate, ...]
    outputs: tuple[_Gate, ...]
    name: str = Field(min_length=1, max_length=256)


class ClientSpecs(_Spec):
    """client.specs.json of a linear circuit: one input row, one output row, no evaluation keys."""

    keyset: _Keyset
    circuits: tuple[_CircuitSpec, ...]
    tfhers_specs: dict[str, dict[str, tuple[None, ...]]] | None = Field(
        default=None, alias="tfhers_specs", exclude=True
    )
    """Concrete's bridge to TFHE-rs, which linear circuits do not use."""

    @model_validator(mode="after")
    def _is_linear(self) -> Self:
        keys = self.keyset
        if keys.lwe_bootstrap_keys or keys.lwe_keyswitch_keys or keys.packing_keyswitch_keys:
            raise ValueError("it needs evaluation keys; only linear models can be queried")
        if len(keys.lwe_secret_keys) != 1:
            raise ValueError(f"it has {len(keys.lwe_secret_keys)} secret keys; one is expected")
        if len(self.circuits) != 1:
            raise ValueError(f"it has {len(self.circuits)} circuits; one is expected")
        circuit = self.circuits[0]
        if len(circuit.inputs) != 1 or len(circuit.outputs) != 1:
            raise ValueError("the circuit must have one input and one output")
        _check_shape(self.input, self.circuits[0].inputs[0], "seed", SEED_AND_BODY_WORDS)
        _check_shape(self.output, self.circuits[0].outputs[0], "none", self.lwe_dimension + 1)
        return self

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        key = self.keyset.lwe_secret_keys[0]
        dimension = key.params.lwe_dimension
        if not SMALLEST_DIMENSION <= dimension <= LARGEST_DIMENSION:
            raise ValueError(
                f"the LWE dimension {dimension} is outside [{SMALLEST_DIMENSION}, "
                f"{LARGEST_DIMENSION}], where the security of parameters is known"
            )
        for ciphertext in (self.input, self.output):
            encryption = ciphertext.encryption
            if (encryption.key_id, encryption.lwe_dimension) != (key.id, dimension):
                raise ValueError("a ciphertext is not of the secret key")
            log2_std, safe = math.log2(encryption.variance) / 2, smallest_safe_log2_std(dimension)
            if log2_std < safe - TOLERANCE:
                raise ValueError(
                    f"the noise is below 128 bits of security: log2 of its relative standard "
                    f"deviation is {log2_std:.4f}, and must be at least {safe:.4f} for dimension "
                    f"{dimension}"
                )
        return self

    @property
    def circuit_name(self) -> str:
        """Name of the circuit."""
        return self.circuits[0].name

    @property
    def input(self) -> _Ciphertext:
        """The encrypted input row."""
        return self.circuits[0].inputs[0].ciphertext

    @property
    def output(self) -> _Ciphertext:
        """The encrypted scores."""
        return self.circuits[0].outputs[0].ciphertext

    @property
    def lwe_dimension(self) -> int:
        """Length of the secret key, in bits."""
        return self.keyset.lwe_secret_keys[0].params.lwe_dimension

    @property
    def n_features(self) -> int:
        """Values in an input row."""
        return self.input.abstract_shape.dimensions[1]

    @property
    def n_outputs(self) -> int:
        """Scores in an output row."""
        return self.output.abstract_shape.dimensions[1]

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


def _data_bytes(ciphertext: _Ciphertext) -> int:
    return math.prod(ciphertext.concrete_shape.dimensions) * MODULUS_BITS // 8


def _check_shape(ciphertext: _Ciphertext, gate: _Gate, compression: str, words: int) -> None:
    shape, concrete = ciphertext.abstract_shape.dimensions, ciphertext.concrete_shape.dimensions
    if ciphertext.compression != compression:
        raise ValueError(f"compression is {ciphertext.compression!r}, not {compression!r}")
    if len(shape) != 2 or shape[0] != 1 or shape[1] < 1:
        raise ValueError(f"a row must have the shape (1, n), not {shape}")
    if concrete != (*shape, words) or gate.raw_info.shape.dimensions != concrete:
        raise ValueError(f"ciphertexts of shape {concrete} do not fit a row of shape {shape}")
    if _data_bytes(ciphertext) > DATA_LIMIT:
        raise ValueError(f"a row of shape {shape} would take more than {DATA_LIMIT} bytes")
