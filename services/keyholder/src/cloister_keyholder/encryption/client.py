"""What makes keys, encrypts and decrypts for a circuit: our own core, or Concrete's client."""

import logging
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from cloister_keyholder.encryption.native import NativeClient, misfit
from cloister_keyholder.encryption.parameters import ClientSpecs
from cloister_keyholder.errors import ClientUnavailable
from cloister_shared.compact import Compact

Integers = npt.NDArray[np.int64]
ClientSetting = Literal["auto", "native", "concrete"]

log = logging.getLogger(__name__)


class SecretKey(Protocol):
    """A secret key of one circuit."""

    def encrypt(self, row: Integers, compact: Compact | None = None) -> bytes:
        """Encrypt integers that the encoding holds, shape (n_features,); return what is sent.

        Args:
            row: to encrypt.
            compact: how far to round, in the compact form, which the native client alone knows;
                by default the form is Concrete's.
        """

    def decrypt(self, result: bytes, compact: Compact | None = None) -> Integers:
        """Return the integers in a result, shape (n_integers,).

        Args:
            result: in the same form as what was sent.
            compact: as ``encrypt`` was given it.

        Raises:
            InvalidResult: these bytes cannot be a result of the circuit.
        """

    def export(self) -> bytes:
        """Return the key as Concrete's serialised key set."""

    def evaluation_keys(self) -> bytes:
        """Return what the service evaluates with.

        Raises:
            KeyUnusable: the circuit needs none.
        """

    def wipe(self) -> None:
        """Overwrite the key, as far as what holds it can."""


class Client(Protocol):
    """Makes keys of one circuit; may be used from any number of threads."""

    @property
    def name(self) -> str:
        """``native`` or ``concrete``."""

    def new_key(self) -> SecretKey:
        """Make a key from the operating system's randomness.

        Raises:
            OSError: it gives none.
        """

    def read_key(self, serialised: bytes) -> SecretKey:
        """Return a key from ``SecretKey.export``, of either client.

        Raises:
            KeyUnusable: these bytes are not a key of this circuit.
        """


@dataclass(frozen=True)
class Choice:
    """The client that serves a circuit."""

    client: Client
    reason: str
    """Why this one."""


def choose_client(setting: ClientSetting, specs: ClientSpecs) -> Choice:
    """Return the native client where it fits the circuit, else Concrete's.

    Args:
        setting: what is asked for; ``native`` refuses to serve by anything else.
        specs: of the circuit, which are checked.

    Raises:
        ClientUnavailable: what is asked for, or is left, cannot serve.
    """
    if setting == "concrete":
        return Choice(_concrete(specs, "CLOISTER_CLIENT=concrete"), "CLOISTER_CLIENT=concrete")
    problem = misfit(specs)
    if problem is None:
        native = NativeClient(specs)
        return Choice(native, f"{native.kernel}: a linear circuit of binary keys")
    if setting == "native":
        raise ClientUnavailable(f"CLOISTER_CLIENT=native, but {problem}")
    log.info("Concrete's client serves, since %s", problem)
    return Choice(_concrete(specs, problem), problem)


def _concrete(specs: ClientSpecs, reason: str) -> Client:
    try:
        # Loads in a second, and is not installed where linear models are all that is queried.
        from cloister_keyholder.encryption.concrete import ConcreteClient  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ClientUnavailable(
            f"Concrete's client is needed here ({reason}) and is not installed: install "
            "cloister-keyholder[concrete], or use the image keyholder instead of keyholder-native"
        ) from None
    return ConcreteClient(specs)
