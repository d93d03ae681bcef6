"""Scales and zero points from serialized_processing.json, read as plain JSON.

Concrete ML's own loader restores Python types named in the file through skops and ``getattr``;
nothing of that is needed here, and nothing that a service sends should choose code to run.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_keyholder.errors import InvalidClientPackage
from cloister_shared.reference import OutputScale, Quantiser

_Int64 = Annotated[int, Field(ge=-(1 << 62), le=1 << 62)]


class _Json(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _Float(_Json):
    type_name: Literal["numpy_float"]
    serialized_value: float = Field(gt=0, allow_inf_nan=False)


class _Scalar(_Json):
    type_name: Literal["numpy_integer"]
    serialized_value: _Int64


class _Row(_Json):
    type_name: Literal["numpy_array"]
    serialized_value: tuple[tuple[_Int64, ...]]


class _InputValue(_Json):
    n_bits: int = Field(ge=1, le=16)
    offset: int = Field(ge=0, le=1 << 16)
    is_narrow: bool
    no_clipping: Literal[False]
    scale: _Float
    zero_point: _Scalar


class _OutputValue(_Json):
    scale: _Float
    zero_point: _Row | _Scalar | _Int64
    """Plain where leaves' values have a sign, and their grid is symmetric."""


class _InputQuantiser(_Json):
    type_name: Literal["UniformQuantizer"]
    serialized_value: _InputValue


class _OutputQuantiser(_Json):
    type_name: Literal["UniformQuantizer"]
    serialized_value: _OutputValue


class _Processing(_Json):
    input_quantizers: tuple[_InputQuantiser, ...]
    output_quantizers: tuple[_OutputQuantiser]
    is_training: Literal[False]
    ciphertext_format: Literal["concrete"]


def read_processing(
    data: bytes, n_outputs: int, *, n_quantisers: int = 1, n_trees: int = 1
) -> tuple[Quantiser, OutputScale]:
    """Read how inputs are quantised and results turned into scores.

    Args:
        data: serialized_processing.json.
        n_outputs: of the circuit; one zero point for all outputs is repeated for each.
        n_quantisers: of inputs: 1 for all features, or one a feature, which must be equal.
        n_trees: of the circuit.

    Raises:
        InvalidClientPackage: the file is malformed, or for another kind of model.
    """
    try:
        processing = _Processing.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidClientPackage(
            f"serialized_processing.json is not that of a known model: {where}: {problem['msg']}"
        ) from None
    if (
        len(processing.input_quantizers) != n_quantisers
        or len(set(processing.input_quantizers)) > 1
    ):
        raise InvalidClientPackage(
            f"serialized_processing.json must state {n_quantisers} equal input_quantizers"
        )
    given = processing.input_quantizers[0].serialized_value
    quantiser = Quantiser(
        scale=given.scale.serialized_value,
        zero_point=given.zero_point.serialized_value,
        low=int(given.is_narrow) - given.offset,
        high=(1 << given.n_bits) - 1 - given.offset,
    )
    output = processing.output_quantizers[0].serialized_value
    stated = output.zero_point
    plain = stated if isinstance(stated, int) else stated.serialized_value
    zero_point = np.array(plain, dtype=np.int64).ravel()
    if zero_point.size == 1:
        zero_point = np.repeat(zero_point, n_outputs)
    if zero_point.size != n_outputs:
        raise InvalidClientPackage(
            f"serialized_processing.json has {zero_point.size} zero points for {n_outputs} outputs"
        )
    return quantiser, OutputScale(output.scale.serialized_value, zero_point, n_trees)
