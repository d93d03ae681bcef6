"""Concrete's evaluation of a circuit, on its runtime alone.

This does what ``concrete.fhe.Server`` does (concrete-python 2.10.0, compilation/server.py) without
importing it, which would bring in torch, and without unpacking Python objects from an artifact.
"""

import io
import json
import zipfile
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from concrete.compiler import (
    Backend,
    CompilationOptions,
    Compiler,
    Library,
    OptimizerMultiParameterStrategy,
    OptimizerStrategy,
    ServerKeyset,
    ServerProgram,
    TransportValue,
    lookup_runtime_lib,
)
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cloister_shared.concrete import contain_concrete
from cloister_shared.errors import CloisterError

contain_concrete()

MLIR = "circuit.mlir"
CONFIGURATION = "configuration.json"
SIMULATED = "is_simulated"
COMPOSITION_RULES = "composition_rules.json"
CLIENT_SPECS = "client.specs.json"
VERSIONS = "versions.json"
SERVER_MEMBERS = {MLIR, CONFIGURATION, SIMULATED, COMPOSITION_RULES, CLIENT_SPECS, VERSIONS}

MEMBER_BYTES_LIMIT = 64 << 20
"""A member of an archive may unpack to this at most."""

FRONT_END_SETTINGS = {
    "additional_post_processors",
    "additional_pre_processors",
    "approximate_rounding_config",
    "auto_adjust_rounders",
    "auto_adjust_truncators",
    "auto_schedule_run",
    "bitwise_strategy_preference",
    "comparison_strategy_preference",
    "compiler_debug_mode",
    "compiler_verbose_mode",
    "dump_artifacts_on_unexpected_failures",
    "dynamic_assignment_check_out_of_bounds",
    "dynamic_indexing_check_out_of_bounds",
    "enable_unsafe_features",
    "fhe_execution",
    "fhe_simulation",
    "if_then_else_chunk_size",
    "insecure_key_cache_location",
    "min_max_strategy_preference",
    "multivariate_strategy_preference",
    "optim_lsbs_with_lut",
    "optimize_tlu_based_on_measured_bounds",
    "optimize_tlu_based_on_original_bit_width",
    "print_tlu_fusing",
    "progress_tag",
    "progress_title",
    "relu_on_bits_chunk_size",
    "relu_on_bits_threshold",
    "rounding_exactness",
    "shifts_with_promotion",
    "show_assigned_graph",
    "show_bit_width_assignments",
    "show_bit_width_constraints",
    "show_graph",
    "show_mlir",
    "show_optimizer",
    "show_progress",
    "show_statistics",
    "simulate_encrypt_run_decrypt",
    "single_precision",
    "use_insecure_key_cache",
    "verbose",
}
"""Settings that shaped the MLIR, or the output on a terminal, and mean nothing once it is there."""


ENUM_VALUES = {
    "MONO": "mono",
    "MULTI": "multi",
    "PRECISION": "precision",
    "PRECISION_AND_NORM2": "precision_and_norm2",
    "SECURITY_128_BITS": 128,
    "SECURITY_132_BITS": 132,
}
"""Members of Concrete's enums by name (concrete-python 2.10.0, compilation/configuration.py)."""


def _enum_value(value: object) -> object:
    """Read the value of an enum member as jsonpickle writes it.

    CPython pickles a member by its name in some releases of 3.11 and by its value in others.
    """
    match value:
        case {"py/reduce": [{"py/function": "builtins.getattr"}, {"py/tuple": [_, str() as name]}]}:
            return ENUM_VALUES.get(name, name)
        case {"py/reduce": [{"py/type": str()}, {"py/tuple": [member]}]}:
            return member
        case _:
            return value


class Configuration(BaseModel):
    """The settings that the MLIR was made to be compiled with, as far as they are supported."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    loop_parallelize: bool
    dataflow_parallelize: Literal[False]
    auto_parallelize: Literal[False]
    compress_evaluation_keys: bool
    compress_input_ciphertexts: Literal[True]
    p_error: float | None = Field(gt=0, le=1)
    """Probability that a single table look-up is wrong."""
    global_p_error: float | None = Field(gt=0, le=1)
    """Probability that a result is wrong."""
    parameter_selection_strategy: Annotated[Literal["mono", "multi"], BeforeValidator(_enum_value)]
    multi_parameter_strategy: Annotated[
        Literal["precision", "precision_and_norm2"], BeforeValidator(_enum_value)
    ]
    composable: Literal[False]
    use_gpu: Literal[False]
    enable_tlu_fusing: bool
    detect_overflow_in_simulation: Literal[False]
    range_restriction: None
    keyset_restriction: None
    security_level: Annotated[Literal[128, 132], BeforeValidator(_enum_value)]
    """Bits."""

    @model_validator(mode="after")
    def _states_an_error_probability(self) -> Self:
        if self.p_error is None and self.global_p_error is None:
            raise ValueError("neither p_error nor global_p_error is set")
        return self

    def options(self) -> CompilationOptions:
        """Return the compiler options that ``concrete.fhe.Server.create`` would use."""
        options = CompilationOptions(Backend.CPU)
        options.simulation(False)
        options.set_loop_parallelize(self.loop_parallelize)
        options.set_dataflow_parallelize(self.dataflow_parallelize)
        options.set_auto_parallelize(self.auto_parallelize)
        options.set_compress_evaluation_keys(self.compress_evaluation_keys)
        options.set_compress_input_ciphertexts(self.compress_input_ciphertexts)
        options.set_composable(self.composable)
        options.set_global_p_error(1.0 if self.global_p_error is None else self.global_p_error)
        options.set_p_error(1.0 if self.p_error is None else self.p_error)
        options.set_display_optimizer_choice(False)
        options.set_optimizer_strategy(
            {"mono": OptimizerStrategy.DAG_MONO, "multi": OptimizerStrategy.DAG_MULTI}[
                self.parameter_selection_strategy
            ]
        )
        options.set_optimizer_multi_parameter_strategy(
            {
                "precision": OptimizerMultiParameterStrategy.PRECISION,
                "precision_and_norm2": OptimizerMultiParameterStrategy.PRECISION_AND_NORM2,
            }[self.multi_parameter_strategy]
        )
        options.set_enable_tlu_fusing(self.enable_tlu_fusing)
        options.set_security_level(self.security_level)
        return options


class EncryptedCircuit:
    """A compiled circuit that may be called from any number of threads."""

    name = "concrete"

    def __init__(
        self, library: Library, circuit_name: str, evaluation_keys: ServerKeyset | None = None
    ) -> None:
        """Take a circuit from a library; without evaluation keys it cannot be evaluated."""
        self._library = library
        self._evaluation_keys = evaluation_keys
        self.circuit_name = circuit_name
        """Of the circuit in its library."""
        self._without_keys: EncryptedCircuit | None = None

    def with_keys(self, evaluation_keys: bytes) -> "EncryptedCircuit":
        """Return the same circuit with evaluation keys.

        Args:
            evaluation_keys: a serialised set of the circuit's form; anything else may raise
                RuntimeError, or never return.
        """
        bound = EncryptedCircuit(
            self._library, self.circuit_name, ServerKeyset.deserialize(evaluation_keys)
        )
        # What is released with this circuit, the library's files for example, is still needed.
        bound._without_keys = self
        return bound

    def evaluate(self, payload: bytes) -> bytes:
        """Evaluate one serialised input and return the serialised output.

        Args:
            payload: of the circuit's form; anything else may raise, or never return.

        Raises:
            RuntimeError: the circuit has no evaluation keys.
        """
        if self._evaluation_keys is None:
            raise RuntimeError("this circuit has no evaluation keys yet")
        # A circuit object keeps state during a call: shared by threads it gives wrong results.
        circuit = ServerProgram(self._library, False).get_server_circuit(self.circuit_name)
        (output,) = circuit.call([TransportValue.deserialize(payload)], self._evaluation_keys)
        result: bytes = output.serialize()
        return result


def open_circuit(library_dir: Path, name: str) -> EncryptedCircuit:
    """Return a circuit that was compiled to a folder, without evaluation keys.

    Raises:
        RuntimeError: there is no library in the folder.
    """
    return EncryptedCircuit(Library(str(library_dir)), name)


def compile_circuit(
    server_zip: bytes, client_zip: bytes, evaluation_keys: bytes | None, library_dir: Path
) -> EncryptedCircuit:
    """Compile the circuit of an artifact.

    Args:
        server_zip: Concrete ML's server side, as MLIR.
        client_zip: Concrete ML's client side, with whose parameters inputs are encrypted.
        evaluation_keys: the serialised empty set; None for a circuit that needs keys.
        library_dir: an empty folder for the compiled library; it must stay while the circuit is
            in use.

    Raises:
        CloisterError: an archive is damaged or holds what is not expected, was made by another
            version of Concrete or with settings that are not supported, does not compile, or
            compiles to parameters other than the client's.
    """
    # Both ways in which zipfile and Concrete say that bytes are not what they should be.
    damage = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
    try:
        server = _read_archive(server_zip, SERVER_MEMBERS)
        client = _read_archive(client_zip, {CLIENT_SPECS, VERSIONS}, others_allowed=True)
        for members in (server, client):
            _check_versions(json.loads(members[VERSIONS]))
        options = _configuration(server).options()
        library = Compiler(
            str(library_dir),
            lookup_runtime_lib(),
            generate_shared_lib=True,
            generate_program_info=True,
            generate_compilation_feedback=True,
        ).compile(server[MLIR].decode(), options)
        name = _check_parameters(
            json.loads(library.get_program_info().serialize()), json.loads(client[CLIENT_SPECS])
        )
        circuit = EncryptedCircuit(library, name)
        return circuit if evaluation_keys is None else circuit.with_keys(evaluation_keys)
    except (*damage, KeyError, TypeError, ValueError) as error:
        raise CloisterError(f"the circuit cannot be compiled: {error}") from error


def _read_archive(
    archive: bytes, expected: set[str], *, others_allowed: bool = False
) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        members = opened.infolist()
        names = [member.filename for member in members]
        missing, others = expected.difference(names), set(names) - expected
        if missing or (others and not others_allowed) or len(set(names)) != len(names):
            raise CloisterError(
                f"an archive holds {', '.join(sorted(names))}; expected is each of "
                f"{', '.join(sorted(expected))} once"
            )
        if any(member.file_size > MEMBER_BYTES_LIMIT for member in members):
            raise CloisterError(f"a member of an archive exceeds {MEMBER_BYTES_LIMIT} bytes")
        return {name: opened.read(name) for name in expected}


def _check_versions(stated: dict[str, str]) -> None:
    installed = version("concrete-python")
    made_by = stated["concrete-python"]
    if made_by != installed:
        raise CloisterError(
            f"the artifact was made by concrete-python {made_by}, and {installed} is installed: "
            "compile the model again"
        )


def _configuration(server: dict[str, bytes]) -> Configuration:
    if server[SIMULATED] != b"0":
        raise CloisterError("the circuit is simulated: it computes on unencrypted values")
    if json.loads(server[COMPOSITION_RULES]):
        raise CloisterError("circuits with composition rules are not supported")
    settings: dict[str, Any] = json.loads(server[CONFIGURATION])
    return Configuration.model_validate(
        {name: value for name, value in settings.items() if name not in FRONT_END_SETTINGS}
    )


def _check_parameters(compiled: dict[str, Any], client_specs: dict[str, Any]) -> str:
    """Raise unless the compiled circuit has the client's parameters; return the circuit's name."""
    client_specs.pop("tfhers_specs", None)
    if compiled != client_specs:
        raise CloisterError(
            "the circuit compiles to parameters other than its client's: compile the model again "
            "with the installed version of Concrete"
        )
    (circuit,) = compiled["circuits"]
    name: str = circuit["name"]
    return name
