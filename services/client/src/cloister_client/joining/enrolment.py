"""Enrolling the site's key, until it is accepted."""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import ValidationError

from cloister_client.joining.node_key import NodeKey
from cloister_shared.files import write_atomically
from cloister_shared.joining import ENROL_PATH, Enrolled, EnrolmentRequest, Refused

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 30.0
REFUSED_SECONDS = 30.0
"""Between two attempts of a site that was refused: a new token or key may be put in place."""
ENROLLED = "enrolled"
"""File in the client's own folder: the fingerprint of the key that was accepted last."""

log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """Enrolment does not want this site; the message is its reason."""


class _TokenError(_RefusedError):
    """It is the token that is not good."""


class _AwayError(Exception):
    """Enrolment cannot be asked now; the message says why."""


@dataclass(frozen=True)
class Enrolment:
    """What the site enrols with."""

    http: httpx.Client
    """With enrolment's address as its base URL, which trusts the federation's CA."""
    token_path: Path
    """File of the join token, read anew for each attempt."""
    key: NodeKey
    name: str
    """Of the site."""

    def admit(self, stop: threading.Event) -> None:
        """Return when the key is accepted, or ``stop`` is set.

        What stands in the way is logged, once as long as it stays the same. A site that was
        accepted before goes on where enrolment is away, or its token is over: the SuperLink
        decides.
        """
        told = ""
        retry = FIRST_RETRY_SECONDS
        while not stop.is_set():
            try:
                node_id = self._enrol()
            except (_AwayError, _TokenError) as error:
                if self._was_accepted():
                    log.warning("not enrolled again, which the SuperLink may not need: %s", error)
                    return
                reason = f"not enrolled yet: {error}"
                pause = REFUSED_SECONDS if isinstance(error, _TokenError) else retry
                retry = min(2 * retry, LAST_RETRY_SECONDS)
            except _RefusedError as error:
                reason, pause = f"enrolment refuses this site: {error}", REFUSED_SECONDS
                self._remembered().unlink(missing_ok=True)
            else:
                self._remember()
                log.info(
                    "enrolled as %s, node %s, key %s", self.name, node_id, self.key.fingerprint
                )
                return
            if reason != told:
                log.warning("%s", reason)
                told = reason
            stop.wait(pause)

    def _enrol(self) -> str:
        try:
            token = self.token_path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise _TokenError(
                f"CLOISTER_JOIN_TOKEN_PATH: {self.token_path} cannot be read ({error})"
            ) from None
        if not token.isascii() or not token.isprintable() or not token:
            raise _TokenError(f"CLOISTER_JOIN_TOKEN_PATH: {self.token_path} is no join token")
        request = EnrolmentRequest(public_key=self.key.public_key, name=self.name)
        try:
            answer = self.http.post(
                ENROL_PATH,
                json=request.model_dump(),
                headers={"Authorization": f"Bearer {token}"},
            )
        except httpx.HTTPError as error:
            raise _AwayError(
                f"{self.http.base_url} cannot be reached ({error}): see CLOISTER_ENROLMENT_URL, "
                "and CLOISTER_CA_PATH where it cannot be verified"
            ) from None
        if answer.is_success:
            with suppress(ValidationError):
                return Enrolled.model_validate_json(answer.content).node_id
        detail = f"it answers {answer.status_code}"
        with suppress(ValidationError):
            detail = Refused.model_validate_json(answer.content).detail
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise _TokenError(detail)
        if answer.status_code in {403, 409, 422}:
            raise _RefusedError(detail)
        raise _AwayError(f"{self.http.base_url} says: {detail}")

    def _remembered(self) -> Path:
        return self.key.path.with_name(ENROLLED)

    def _was_accepted(self) -> bool:
        try:
            return self._remembered().read_text() == self.key.fingerprint
        except (OSError, UnicodeDecodeError):
            return False

    def _remember(self) -> None:
        write_atomically(self._remembered(), self.key.fingerprint.encode())
