"""The web server's worker on its way out: clients whom the kernel has accepted are still served, and nobody else is let in."""

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gevent
import gevent.pool
import gevent.socket
import pytest

from service.worker.drain import Listener, refuse_newcomers


@pytest.fixture
def listener() -> Iterator[Any]:
    """A listening socket of gevent."""
    made = gevent.socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen(16)
    yield made
    made.close()


def test_who_is_connected_when_the_listener_closes_is_served(listener: Any) -> None:
    """Connections that wait in the kernel's queue when the server stops are accepted, and handled as far as the listener is needed."""
    seen: list[Any] = []
    address = listener.getsockname()

    def handle(client: Any, _address: Any) -> None:
        seen.append(listener.getsockname())
        client.sendall(client.recv(5))

    pool = gevent.pool.Pool(10)
    server = Listener(listener, handle=handle, spawn=pool)
    server.start()
    clients = [socket.create_connection(address, timeout=10) for _ in range(3)]  # of the kernel: the server's loop does not turn meanwhile
    server.close()
    for client in clients:
        client.sendall(b"hello")
    pool.join(timeout=10)
    assert [client.recv(5) for client in clients] == [b"hello"] * 3
    assert seen == [address] * 3
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)
    server.close()
    for client in clients:
        client.close()


def test_nobody_gets_in_while_the_listener_closes(listener: Any) -> None:
    """Once newcomers are refused no connection is made, so none can be reset by the closing; who was there before is accepted and can talk."""
    address = listener.getsockname()
    with closing(socket.create_connection(address, timeout=10)) as early:
        if not refuse_newcomers(listener):
            pytest.skip("the kernel takes no filter at a socket from this user")
        with closing(socket.socket()) as late:
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.connect(address)
        with closing(listener.accept()[0]) as served:
            early.sendall(b"hello")
            assert served.recv(5) == b"hello"
            served.sendall(b"you")
            assert early.recv(3) == b"you"


def test_a_listener_that_others_share_lets_newcomers_in_again(listener: Any) -> None:
    """A worker that stops alone leaves the socket as it was: the other workers go on accepting."""
    address = listener.getsockname()
    with closing(gevent.socket.socket(fileno=listener.dup().detach())) as other:
        server = Listener(listener, handle=lambda _client, _address: None, spawn=gevent.pool.Pool(1))
        server.start()
        server.shared = True
        server.close()
        with closing(socket.create_connection(address, timeout=10)), closing(other.accept()[0]):
            pass


def test_a_system_without_filters(listener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel takes no filter, the listener closes all the same."""
    monkeypatch.setattr("service.worker.drain._SO_ATTACH_FILTER", 9999)
    assert not refuse_newcomers(listener)
    server = Listener(listener, handle=lambda _client, _address: None, spawn=gevent.pool.Pool(1))
    server.start()
    server.close()
    assert server.closed
