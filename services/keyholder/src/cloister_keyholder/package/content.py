"""client.zip: all that a key holder needs to know to query a model."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_keyholder.encryption.circuit import Circuit
from cloister_keyholder.encryption.client import ClientSetting
from cloister_keyholder.encryption.parameters import read_specs
from cloister_keyholder.encryption.quantiser import read_processing
from cloister_keyholder.errors import IncompatibleVersion, InvalidClientPackage
from cloister_keyholder.package.archive import read_members
from cloister_shared.artifact import CARD, CIRCUIT, CLIENT_ZIP
from cloister_shared.card import ModelCard
from cloister_shared.estimators import estimator, n_outputs
from cloister_shared.links import Link, link
from cloister_shared.reference import OutputScale, Quantiser, Reference
from cloister_shared.tree_reference import TreeReference
from cloister_shared.trees import ranks

SPECS = "client.specs.json"
PROCESSING = "serialized_processing.json"
VERSIONS = "versions.json"
UNPACKED_LIMIT = 32 << 20
"""The most bytes that client.zip may unpack to: 32 MiB."""
RUNTIME, RUNTIME_VERSION = "concrete-python", "2.10.0"
"""What circuits must have been compiled with: other versions have other messages and encodings."""

TREES_PARAMETER = "n_estimators"
"""Of a forest, or of boosted trees of each output: how many there are."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Edges = tuple[Floats, ...]


class _Versions(BaseModel):
    runtime: str = Field(alias=RUNTIME)


_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Features(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    features: tuple[Annotated[int, Field(ge=0, lt=1 << 31)], ...] = Field(min_length=1)
    edges: tuple[tuple[_Number, ...], ...] | None = None
    base: tuple[_Number, ...] | None = None


@dataclass(frozen=True)
class ClientPackage:
    """The checked content of a client.zip."""

    card: ModelCard
    features: Integers
    """Ascending indices of the card's features that the circuit takes, shape
    (n_circuit_features,)."""
    edges: Edges | None
    """Of each of these features, ascending, where the circuit takes ranks among them."""
    quantiser: Quantiser
    output_scale: OutputScale
    circuit: Circuit
    family: Literal["linear", "tree"]
    """What the circuit computes; see ``cloister_shared.estimators``."""
    link: Link
    """What scores mean."""

    def quantise(self, inputs: Floats) -> Integers:
        """Return what is encrypted of inputs in [0, 1].

        Args:
            inputs: all of the card's, shape (n, n_inputs).

        Returns:
            Shape (n, n_circuit_features).
        """
        taken = inputs[:, self.features]
        if self.edges is None:
            return self.quantiser.quantise(taken)
        return self.quantiser.quantise(ranks(taken, self.edges).astype(np.float64))

    def read_reference(self, path: Path) -> Reference | TreeReference:
        """Read the circuit in the clear, in the form of this family, from an .npz file.

        Raises:
            CloisterError: the file is damaged, or of another family.
        """
        if self.family == "tree":
            return TreeReference.read(path, self.card.data)
        return Reference.read(path)

    def is_of(self, reference: Reference | TreeReference) -> bool:
        """Whether this is the client side of a circuit, as far as the two have in common."""
        if not np.array_equal(reference.features, self.features):
            return False
        if isinstance(reference, TreeReference):
            return (
                reference.trees.n_rounds == self.circuit.specs.n_trees
                and all(map(np.array_equal, reference.ranked.edges, self.edges or ()))
                and np.array_equal(_or_none(reference.trees.base), _or_none(self.output_scale.base))
            )
        data = self.card.data
        return reference.coef.shape == (data.n_outputs, data.n_inputs)


def open_package(data: bytes, client: ClientSetting = "auto") -> ClientPackage:
    """Check a client.zip and return what it says. Nothing in it is executed or unpickled.

    Args:
        data: the archive.
        client: what is to make keys, encrypt and decrypt; see ``choose_client``.

    Raises:
        ClientUnavailable: that client cannot serve.
        InvalidClientPackage: it is damaged, too large, or its parts disagree.
        IncompatibleVersion: it was made by another version of Concrete.
        UnsafeParameters: its parameters would not protect what is encrypted with them.
    """
    members = read_members(data, limit=UNPACKED_LIMIT)
    for name in (SPECS, PROCESSING, VERSIONS, CARD):
        if name not in members:
            raise InvalidClientPackage(f"{CLIENT_ZIP} lacks {name}")
    _check_version(members[VERSIONS])
    specs = read_specs(members[SPECS])
    card = _card(members[CARD])
    row = estimator(card.estimator)
    family = row.family
    # A linear model that asks for a key that is kept would lose the protection of fresh ones.
    if specs.needs_evaluation_keys != (family == "tree"):
        raise InvalidClientPackage(
            f"{CLIENT_ZIP} {'asks' if specs.needs_evaluation_keys else 'does not ask'} for "
            f"evaluation keys, which is wrong for a {card.estimator}"
        )
    quantiser, output_scale = read_processing(
        members[PROCESSING],
        specs.n_outputs,
        n_quantisers=specs.n_features if family == "tree" else 1,
        n_trees=specs.n_trees,
    )
    low, high = specs.input_range
    if quantiser.low < low or quantiser.high > high:
        raise InvalidClientPackage(
            f"{CLIENT_ZIP} quantises to [{quantiser.low}, {quantiser.high}], which its circuit "
            f"cannot hold: [{low}, {high}]"
        )
    features, edges, base = _features(members.get(CIRCUIT), card.data.n_inputs)
    outputs = n_outputs(row, len(card.data.classes))
    if (specs.n_features, specs.n_outputs) != (len(features), outputs):
        raise InvalidClientPackage(
            f"{CLIENT_ZIP} has a circuit of {specs.n_features} inputs and {specs.n_outputs} "
            f"outputs; its {CARD} and {CIRCUIT} say {len(features)} and {outputs}"
        )
    if (len(base) if base is not None else 0) != (outputs if row.boosted else 0):
        raise InvalidClientPackage(
            f"{CIRCUIT} must state the base of each output of boosted trees, and of no others"
        )
    n_trees = card.parameters.get(TREES_PARAMETER) if TREES_PARAMETER in row.largest else 1
    if specs.n_trees != n_trees:
        raise InvalidClientPackage(
            f"{CLIENT_ZIP} has a circuit of {specs.n_trees} trees; its {CARD} says {n_trees!r:.40}"
        )
    if edges is not None:
        _check_edges(edges, len(features), family, quantiser)
    return ClientPackage(
        card,
        features,
        edges,
        quantiser,
        replace(output_scale, base=base),
        Circuit(specs, client),
        family,
        _link(card),
    )


def _check_version(data: bytes) -> None:
    try:
        made_by = _Versions.model_validate_json(data).runtime
    except ValidationError:
        raise InvalidClientPackage(f"{VERSIONS} does not name the version of {RUNTIME}") from None
    if made_by != RUNTIME_VERSION:
        raise IncompatibleVersion(
            f"this model was compiled with {RUNTIME} {made_by!r:.40}, and {RUNTIME_VERSION} is "
            "expected here: use the key holder of the release that serves the model"
        )


def _or_none(base: Floats | None) -> Floats:
    return np.zeros(0) if base is None else base


def _features(
    data: bytes | None, n_card_features: int
) -> tuple[Integers, Edges | None, Floats | None]:
    if data is None:
        return np.arange(n_card_features), None, None
    try:
        described = _Features.model_validate_json(data)
    except ValidationError:
        raise InvalidClientPackage(f"{CIRCUIT} does not list the features of a circuit") from None
    features = described.features
    if features[-1] >= n_card_features or any(one >= next_ for one, next_ in pairwise(features)):
        raise InvalidClientPackage(
            f"{CIRCUIT} must list features in ascending order, from 0 to {n_card_features - 1}"
        )
    edges = described.edges
    return (
        np.array(features, dtype=np.int64),
        None if edges is None else tuple(np.array(one, dtype=np.float64) for one in edges),
        None if described.base is None else np.array(described.base, dtype=np.float64),
    )


def _check_edges(edges: Edges, n_features: int, family: str, quantiser: Quantiser) -> None:
    if family != "tree" or len(edges) != n_features:
        raise InvalidClientPackage(f"{CIRCUIT} has edges that are not those of its features")
    for one in edges:
        # A rank is the number of edges below an input, and is encrypted as it is.
        if not 1 <= len(one) <= quantiser.high or (np.diff(one) <= 0).any():
            raise InvalidClientPackage(
                f"{CIRCUIT} must list 1 to {quantiser.high} ascending edges for each feature"
            )
    if (quantiser.scale, quantiser.zero_point, quantiser.low) != (1.0, 0, 0):
        raise InvalidClientPackage(f"{CLIENT_ZIP} does not encrypt ranks as they are")


def _card(data: bytes) -> ModelCard:
    try:
        card = ModelCard.model_validate_json(data)
    except ValidationError:
        raise InvalidClientPackage(f"{CARD} is not a model card") from None
    # Scores become answers as the estimator defines it: only known ones can be.
    if estimator(card.estimator).task != card.data.task:
        raise InvalidClientPackage(
            f"{CARD} is of a {card.data.task}, which a {card.estimator} does not do"
        )
    return card


def _link(card: ModelCard) -> Link:
    try:
        return link(card.estimator, card.parameters, len(card.data.classes))
    except TypeError:
        raise InvalidClientPackage(f"{CARD} has parameters that no {card.estimator} has") from None
