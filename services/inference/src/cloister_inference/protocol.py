"""The Open Inference Protocol's messages, and two extensions of it on the server's side.

https://github.com/kserve/open-inference-protocol, and extension_binary_data.md and
extension_model_repository.md in
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_inference.forms import Form, Forms
from cloister_inference.problems import MalformedRequestError, TooLargeError
from cloister_inference.serving.catalogue import Published
from cloister_shared.errors import CloisterError
from cloister_shared.open_inference import (
    INPUT_NAME,
    OUTPUT_NAME,
    decode_elements,
    encode_elements,
)

EXTENSIONS = (
    "binary_tensor_data",
    "model_repository",
    "model_repository(unload_dependents)",
    "cloister_client",
)
PLATFORM = "concrete_fhe"
DIGEST_PATTERN = "^[0-9a-f]{64}$"
"""A SHA-256 as the service writes it."""
HEADER_BYTES_LIMIT = 16 << 10
"""The JSON header of a request may have this many bytes at most."""


class _Request(BaseModel):
    # What a client asks for and this service does not do is refused, not overlooked.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InputParameters(_Request):
    """Where an input's data is."""

    binary_data_size: int = Field(ge=0)
    """Bytes that follow the JSON header."""
    form: Literal["concrete", "compact"] = "concrete"
    """Of the ciphertexts."""


class RequestInput(_Request):
    """A batch of ciphertexts."""

    name: Literal["ciphertext"]
    shape: tuple[int]
    """Number of ciphertexts."""
    datatype: Literal["BYTES"]
    parameters: InputParameters


class OutputParameters(_Request):
    """How a result is sent."""

    binary_data: Literal[True] = True
    form: Literal["concrete", "compact"] = "concrete"


class RequestOutput(_Request):
    """A result that is asked for."""

    name: Literal["result"]
    parameters: OutputParameters = OutputParameters()


class RequestParameters(BaseModel):
    """Parameters of a request; others than these are left to their authors."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    client_digest: str | None = Field(default=None, pattern=DIGEST_PATTERN)
    """SHA-256 of the client.zip that the ciphertexts were made for."""
    timeout: int = Field(default=0, ge=0, lt=1 << 64)
    """Microseconds after which the request is given up; 0 leaves it to the service. Its source is
    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_schedule_policy.md
    """
    evaluation_key: str | None = Field(default=None, pattern=DIGEST_PATTERN)
    """SHA-256 of the evaluation keys to evaluate with."""
    binary_data_output: Literal[True] = True


class InferenceHeader(_Request):
    """The JSON header of an inference request."""

    id: str | None = None
    """Comes back in the answer."""
    inputs: tuple[RequestInput]
    outputs: tuple[RequestOutput] | tuple[()] = ()
    parameters: RequestParameters = RequestParameters()

    @property
    def forms(self) -> Forms:
        """The forms of the ciphertexts and of the results."""
        (sent,) = self.inputs
        asked = [output.parameters.form for output in self.outputs]
        return Forms(Form(sent.parameters.form), Form(asked[0]) if asked else Form.CONCRETE)


class BinaryParameters(BaseModel):
    """Where an output's data is."""

    binary_data_size: int


class ResponseOutput(BaseModel):
    """A batch of results."""

    name: str = OUTPUT_NAME
    shape: tuple[int]
    datatype: Literal["BYTES"] = "BYTES"
    parameters: BinaryParameters


class InferenceAnswer(BaseModel):
    """The JSON header of an inference answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: tuple[ResponseOutput]


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: tuple[str, ...]


class Live(BaseModel):
    """The process runs."""

    live: Literal[True] = True


class Ready(BaseModel):
    """At least one model can be served."""

    ready: Literal[True] = True


class ModelReady(BaseModel):
    """The model can be served."""

    name: str
    ready: Literal[True] = True


class TensorMetadata(BaseModel):
    """Name and type of an input or output."""

    name: str
    datatype: Literal["BYTES"] = "BYTES"
    shape: tuple[int] = (-1,)
    """Any number of elements, to the limit of a batch."""


class CompactParameters(BaseModel):
    """The compact form of a version's messages."""

    body_bits: int
    """To which the bodies of an input are rounded."""
    word_bits: int
    """To which the words of a result are rounded."""
    input_bytes: int
    """Length of every compact input."""
    output_bytes: int
    """Length of every compact result."""


class ModelParameters(BaseModel):
    """What a key holder needs to know of a version."""

    version: str
    client_digest: str
    """SHA-256 of client.zip."""
    input_bytes: int
    """Length of every serialised input."""
    output_bytes: int
    """Length of every serialised output."""
    compact: CompactParameters | None
    """Of the compact form; null where this version takes and gives none."""
    reference: bool
    """Whether the circuit in the clear can be downloaded."""
    evaluator: str
    """What evaluates this version: ``native`` or ``concrete``."""
    evaluator_reason: str
    """Why this one."""
    evaluation_key_bytes: int
    """Length of the evaluation keys to upload before the first request; 0 where none are needed."""


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str = PLATFORM
    inputs: tuple[TensorMetadata] = (TensorMetadata(name=INPUT_NAME),)
    outputs: tuple[TensorMetadata] = (TensorMetadata(name=OUTPUT_NAME),)
    parameters: ModelParameters


class IndexRequest(_Request):
    """Which versions the index lists."""

    ready: bool = False
    """Only those that are loaded."""


class IndexEntry(BaseModel):
    """The state of a published version."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str
    """Why it is not ready; empty where it is."""


class ModelVersion(Published):
    """One published version of a model; what its files do not tell is null."""

    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str
    """Why it is not ready; empty where it is."""
    evaluator: str | None
    """What evaluates it, of one that is loaded: ``native`` or ``concrete``."""
    evaluator_reason: str | None
    """Why this one."""


class ModelVersions(BaseModel):
    """All published versions of a model."""

    name: str
    serving: str | None
    """The version that serves requests which name none."""
    registered: str | None
    """The version that the registry puts into use; another one serves where that was put into use
    over HTTP, or where this one cannot be served."""
    versions: tuple[ModelVersion, ...]
    """The newest first."""


class PromoteParameters(_Request):
    """What is to be put into use."""

    version: str
    """Number of the version."""


class PromoteRequest(_Request):
    """The body of a request to put a version into use."""

    parameters: PromoteParameters


class LoadParameters(_Request):
    """What is to be loaded."""

    version: str | int | None = None
    """Number of the version; without one, the current version is loaded, and serves then."""


class LoadRequest(_Request):
    """The body of a request to load a model."""

    parameters: LoadParameters = LoadParameters()


class UnloadParameters(_Request):
    """What is to be unloaded besides the model."""

    unload_dependents: bool = False
    """Makes no difference: no model depends on another."""


class UnloadRequest(_Request):
    """The body of a request to unload a model."""

    parameters: UnloadParameters = UnloadParameters()


Message = TypeVar("Message", bound=_Request)


def parse_json(text: bytes, message: type[Message], name: str) -> Message:
    """Take a JSON message apart.

    Args:
        text: the message.
        message: what it should be.
        name: of the message, for the error.

    Raises:
        MalformedRequestError: it is something else.
    """
    try:
        return message.model_validate_json(text)
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}".lstrip(": ")
            for problem in error.errors()
        )
        raise MalformedRequestError(f"{name}: {details}") from None


def parse_framed(
    body: bytes, header_length: int, max_batch: int
) -> tuple[InferenceHeader, list[bytes]]:
    """Take a request in the binary tensor extension apart.

    Args:
        body: the JSON header, then the input's data.
        header_length: bytes of the JSON header.
        max_batch: elements at most.

    Returns:
        The header, and at least one element.

    Raises:
        MalformedRequestError: the body is not what the protocol says.
        TooLargeError: it holds more than ``max_batch`` elements.
    """
    if not 0 < header_length <= min(len(body), HEADER_BYTES_LIMIT):
        raise MalformedRequestError(
            f"a JSON header of {header_length} bytes does not fit: the body has {len(body)}, and "
            f"at most {HEADER_BYTES_LIMIT} are taken"
        )
    header = parse_json(
        body[:header_length], InferenceHeader, "the JSON header is not an inference request"
    )
    (tensor,) = header.inputs
    (count,) = tensor.shape
    data = memoryview(body)[header_length:]
    if tensor.parameters.binary_data_size != len(data):
        raise MalformedRequestError(
            f"binary_data_size is {tensor.parameters.binary_data_size}; {len(data)} bytes follow "
            "the JSON header"
        )
    if count < 1:
        raise MalformedRequestError("an inference request holds at least one element")
    if count > max_batch:
        raise TooLargeError(f"{count} elements are too many: at most {max_batch} go in one request")
    try:
        return header, decode_elements(data, count)
    except CloisterError as error:
        raise MalformedRequestError(str(error)) from None


def build_framed(
    name: str, version: str, request_id: str | None, results: Sequence[bytes]
) -> tuple[bytes, int]:
    """Put an answer in the binary tensor extension together.

    Returns:
        The body, and how many bytes of it are the JSON header.
    """
    data = encode_elements(results)
    answer = InferenceAnswer(
        model_name=name,
        model_version=version,
        id=request_id,
        outputs=(
            ResponseOutput(
                shape=(len(results),), parameters=BinaryParameters(binary_data_size=len(data))
            ),
        ),
    )
    header = answer.model_dump_json(exclude_none=True).encode()
    return header + data, len(header)
