"""The exceptions of otabrake, as a tree. Edges translate what they meet into these; the road turns them into sentences.

    OtabrakeError
    ├── ConfigurationError        start-up: every problem found, listed at once          (exit code 2)
    ├── DependencyAbsent          the database did not answer in time                    (exit code 3)
    ├── PolicyInvalid             a policy that cannot be loaded: every complaint with its file:line
    ├── OutOfTurn                 an answer that the proposal's state does not admit
    ├── LeaseLost                 somebody else works on this now: nothing was sent
    ├── StoreUnavailable          the database cannot be read or written now
    ├── Unidentified              this person may not use the bot (guest, bot, outsider, deactivated)
    ├── PeopleUnavailable         Slack did not tell us who this is: refuse, and say that
    └── CloudError                an answer of the cloud that is not a success
        ├── CloudRefused          the cloud said no: code, message, request id
        │   └── CloudThrottled    … because of its rate limit; may be asked again
        ├── CloudUnreachable      the request never left us: nothing happened
        └── CloudLost             it may have arrived: what happened is not known

Errors carry their facts as attributes. Nothing here formats for Slack, and nothing secret is ever put into one.
"""

from __future__ import annotations

from collections.abc import Sequence


class OtabrakeError(Exception):
    """Root of the tree."""


class ConfigurationError(OtabrakeError):
    """What is wrong with the settings, each problem as one sentence that says what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class DependencyAbsent(OtabrakeError):
    """Something that we cannot run without did not answer in time."""


class PolicyInvalid(OtabrakeError):
    """A policy that was not taken; `complaints` are sentences that begin with ``file:line``."""

    def __init__(self, complaints: Sequence[str]) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = tuple(complaints)


class OutOfTurn(OtabrakeError):
    """The proposal is in a state in which this answer has no meaning."""


class LeaseLost(OtabrakeError):
    """This process was away for so long that another may have taken its work over; it must not go on with it."""


class StoreUnavailable(OtabrakeError):
    """The database cannot be used now: nothing was written, unless `may_have_written` (a commit without an answer)."""

    def __init__(self, why: str, *, may_have_written: bool = False) -> None:
        super().__init__(why)
        self.may_have_written = may_have_written


class Unidentified(OtabrakeError):
    """This person may not use the bot; the text says why and what to do."""


class PeopleUnavailable(OtabrakeError):
    """Slack did not answer a look-up; without it nobody is let in."""


class CloudError(OtabrakeError):
    """The cloud did not say yes. `about` is the one device that it concerns, where several were asked about."""

    about: str = ""


class CloudRefused(CloudError):
    """The cloud answered, and the answer was no.

    `code` as the cloud spelt it (compare with `.casefold()`), `message` its text, `request_id` its id for support,
    `status` the HTTP status.
    """

    def __init__(self, code: str, message: str, *, request_id: str | None = None, status: int | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.request_id = request_id
        self.status = status


class CloudThrottled(CloudRefused):
    """Too many calls; `retry_after_seconds` is what the cloud asked for, if it did."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        request_id: str | None = None,
        status: int | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(code, message, request_id=request_id, status=status)
        self.retry_after_seconds = retry_after_seconds


class CloudUnreachable(CloudError):
    """No connection was made (refused, unknown host, TLS): the request was not sent."""


class CloudLost(CloudError):
    """The request may have arrived (time-out, connection lost, 5xx, unreadable answer); `request_id` if seen.

    `is_read`: it asked for something and changed nothing, wherever it went.
    """

    def __init__(self, why: str, *, request_id: str | None = None, is_read: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.request_id = request_id
        self.is_read = is_read
