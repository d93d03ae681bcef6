"""SDK and command line of the party that alone holds the keys."""

from cloister_keyholder.aio import AsyncEncryptedModel
from cloister_keyholder.errors import (
    ClientUnavailable,
    IncompatibleVersion,
    InvalidAnswer,
    InvalidClientPackage,
    InvalidResult,
    InvalidSamples,
    KeyholderError,
    KeyUnusable,
    RequestRefused,
    ServiceUnavailable,
    UnsafeParameters,
    WorkerLost,
)
from cloister_keyholder.keys.stored_key import KeyFolder
from cloister_keyholder.model import EncryptedModel
from cloister_keyholder.querying.pipeline import Answer, Limits

__all__ = [
    "Answer",
    "AsyncEncryptedModel",
    "ClientUnavailable",
    "EncryptedModel",
    "IncompatibleVersion",
    "InvalidAnswer",
    "InvalidClientPackage",
    "InvalidResult",
    "InvalidSamples",
    "KeyFolder",
    "KeyUnusable",
    "KeyholderError",
    "Limits",
    "RequestRefused",
    "ServiceUnavailable",
    "UnsafeParameters",
    "WorkerLost",
]
