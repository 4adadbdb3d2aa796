"""Answers that end a request early."""

from http import HTTPStatus

from service.errors import REJECTED, UNKNOWN, BackendError

Headers = list[tuple[str, str]]
Answer = tuple[int, Headers, bytes]
"""Status, headers (without Content-Length) and body of a response."""

TEXT = ("Content-Type", "text/plain; charset=utf-8")
OUTCOME = "X-Kvorum-Outcome"
READ_METHODS = ("GET", "HEAD", "OPTIONS")


class RequestRefused(Exception):
    """A request that can't be served as it is. Nothing was changed.

    :param status: of the HTTP answer.
    :param text: the body; with an empty one no Content-Type is sent, as Consul does it.
    :param headers: more headers.
    """

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers

    def answer(self, method: str) -> Answer:
        """The response; that to a write says that nothing happened."""
        headers = [TEXT, *self.headers] if self.text else list(self.headers)
        if method not in READ_METHODS:
            headers.append((OUTCOME, REJECTED))
        return self.status, headers, self.text.encode("utf-8", "surrogateescape")


def backend_failure(error: BackendError, method: str) -> Answer:
    """The response when the agent did not carry a request out; that to a write says whether it may have happened."""
    headers = [TEXT]
    if method not in READ_METHODS:
        headers.append((OUTCOME, error.outcome))
    text = str(error)
    if error.outcome == UNKNOWN and method not in READ_METHODS:
        text = f"the outcome of this write is unknown: {text}"
    return HTTPStatus.INTERNAL_SERVER_ERROR, headers, text.encode()


def reason_phrase(status: int) -> str:
    """The status line's text after the protocol version."""
    return _LINES.get(status) or f"{status} Unknown"


_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_LINES[413] = "413 Request Entity Too Large"
