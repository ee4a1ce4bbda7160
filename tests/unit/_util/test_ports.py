"""Free ports: bindable, never twice, and none that the system hands out by itself."""

import socket

import pytest

from agentcascade._util import ports
from agentcascade._util.ports import free_port


def test_ports_are_bindable_distinct_and_below_those_of_outgoing_connections() -> None:
    given = [free_port() for _ in range(50)]
    assert len(set(given)) == 50
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert max(given) < listener.getsockname()[1]
    for port in given:
        socket.create_server(("127.0.0.1", port)).close()


def test_a_port_that_is_held_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    held, other = free_port(), free_port()
    monkeypatch.setattr(ports, "_ports", iter([held, other]))
    with socket.create_server(("127.0.0.1", held)):
        assert free_port() == other
