"""The web server's listener on its way out: clients whom the kernel has accepted are still served."""

import socket
from typing import Any

import gevent
import gevent.pool
import gevent.socket
import pytest


def test_who_is_connected_when_the_listener_closes_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that wait in the kernel's queue when the server stops are accepted, and handled as far as the listener is needed."""
    monkeypatch.setenv("KVORUM_NAME", "n1")
    from service.gunicorn_conf import LastCall  # noqa: PLC0415 - it reads the environment when it is imported

    seen: list[Any] = []

    listener = gevent.socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    address = listener.getsockname()

    def handle(client: Any, _address: Any) -> None:
        seen.append(listener.getsockname())
        client.sendall(client.recv(5))

    pool = gevent.pool.Pool(10)
    server = LastCall(listener, handle=handle, spawn=pool)
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
