"""What a request that did not succeed is told as."""

from typing import Any

from service.errors import REJECTED, KvorumError


class ClientError(KvorumError):
    """A request that did not succeed.

    :param message: what happened, for people.
    :param outcome: ``rejected`` or ``unknown``.
    :param status: the HTTP status, or 0 when no answer came.
    :ivar problem: the object that a native route explained itself with (RFC 9457); empty when there was none.
    """

    def __init__(self, message: str, outcome: str = REJECTED, status: int = 0, problem: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.status = status
        self.problem = problem or {}

    @property
    def retryable(self) -> bool:
        """Whether the operation certainly did not happen and may well succeed a moment later."""
        return self.outcome == REJECTED and (self.status in {0, 429} or self.status >= 500)


class AddressInvalid(ClientError):
    """An address or token given to the client that can't be used."""

    exit_code = 2
