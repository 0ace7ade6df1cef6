"""Tests cannot reach the network, and may talk to themselves."""

from __future__ import annotations

import socket
import threading
import urllib.request

import pytest


def test_other_hosts_are_refused() -> None:
    with socket.socket() as out, pytest.raises(RuntimeError, match="Tests use no network"):
        out.connect(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match="Tests use no network"):
        urllib.request.urlopen("http://192.0.2.1/", timeout=1)


def test_loopback_works() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"ACGT")

        thread = threading.Thread(target=answer)
        thread.start()
        with socket.create_connection(server.getsockname()) as client:
            assert client.recv(4) == b"ACGT"
        thread.join()
