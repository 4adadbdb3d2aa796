"""What gunicorn's own server answers where this project has changed it."""

import socket
from contextlib import closing

from service.worker.stock import write_error


def test_what_cannot_be_read_is_refused_in_plain_text() -> None:
    """A request that gunicorn can't even read gets Go's words, not a page of HTML that repeats it, and is the last of its connection."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        write_error(ours, 400, "Bad Request", "Invalid HTTP Version: '<b>'")
        ours.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: theirs.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"400 Bad Request"
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 400 Bad Request",
        b"Content-Type: text/plain; charset=utf-8",
        b"Connection: close",
        b"Content-Length: 15",
    ]
