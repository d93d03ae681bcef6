"""What can go wrong at the key holder.

CloisterError
└── KeyholderError
    ├── ServiceUnavailable        the service did not answer in the time allowed
    ├── RequestRefused            it answered, with an HTTP error
    ├── InvalidAnswer             it answered something that the protocol does not allow
    │   └── InvalidResult         ... as the encrypted result of a query
    ├── InvalidClientPackage      its client.zip is damaged, or not one for this program
    │   ├── IncompatibleVersion   ... made by another version of Concrete
    │   └── UnsafeParameters      ... with parameters that would not protect the query
    ├── ClientUnavailable         what is to make keys and encrypt is not there, or does not fit
    ├── KeyUnusable               a key was used already, or its file cannot be used
    ├── WorkerLost                a process that encrypts ended, and its keys with it
    ├── InvalidSamples            the key holder's own samples do not fit the model
    └── ReportError               a report cannot be made of what there is, or written there
"""

from cloister_shared.errors import CloisterError


class KeyholderError(CloisterError):
    """Base of the errors of this package."""


class ServiceUnavailable(KeyholderError):  # noqa: N818 - named for what happened, as httpx names its own
    """The service could not be reached, or was busy, for as long as retrying was allowed."""


class RequestRefused(KeyholderError):  # noqa: N818 - named for what happened, as httpx names its own
    """The service answered with an HTTP error that asking again would not change."""

    def __init__(self, status: int, detail: str) -> None:
        advice = "; CLOISTER_API_KEY_PATH names the file that holds yours" if status == 401 else ""
        super().__init__(f"the service refused the request ({status}): {detail}{advice}")
        self.status = status
        """HTTP status code."""
        self.detail = detail
        """The service's own explanation; printable characters only."""


class InvalidAnswer(KeyholderError):  # noqa: N818 - named for what happened, as httpx names its own
    """An answer is too large, not what the protocol says, or not what its digest promises."""


class InvalidResult(InvalidAnswer):
    """What should be an encrypted result cannot be one. Its key is gone: encrypt again."""


class InvalidClientPackage(KeyholderError):  # noqa: N818 - named for what happened, as httpx names its own
    """A client.zip is damaged, too large, or not for the circuits that this program knows."""


class IncompatibleVersion(InvalidClientPackage):
    """A client.zip was made by another version of Concrete than the one installed here."""


class UnsafeParameters(InvalidClientPackage):
    """A client.zip asks for encryption below 128 bits of security, or of an unknown kind."""


class ClientUnavailable(KeyholderError):  # noqa: N818 - named for what happened
    """The client that is asked for, or is left, cannot serve this model here."""


class KeyUnusable(KeyholderError):  # noqa: N818 - named for what happened, as httpx names its own
    """A key has decrypted its one result, or its file is damaged or exists already."""


class WorkerLost(KeyholderError):  # noqa: N818 - named for what happened, as httpx names its own
    """A process that encrypts rows ended or hangs. Its keys are gone with it: query again."""


class InvalidSamples(KeyholderError):  # noqa: N818 - named for what happened, as httpx names its own
    """A CSV file or held-out set is malformed, or made for another model."""


class ReportError(KeyholderError):
    """What a report is to be made of is damaged, or a file is where it is to be written."""
