"""Whom a wrong passphrase is counted for, so that no local user keeps another one waiting."""

from __future__ import annotations

from typing import Any

import pytest

from dicode_mcp.service.login_attempts import FREE, LoginAttempts
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.web.proxies import CLIENT
from dicode_mcp.web.sock_diag import SocketOwner
from dicode_mcp.web.typists import Typists

OWN = ("127.0.0.1", 8080)


def scope(peer: str, port: int = 5000, client: str | None = "peer") -> Any:
    return {
        "client": (peer, port),
        "server": OWN,
        "state": {CLIENT: peer if client == "peer" else client},
    }


def typists(**owners: SocketOwner | None) -> Typists:
    found = {int(port.removeprefix("p")): owner for port, owner in owners.items()}
    return Typists(lambda inode: inode == 666, lambda peer, own: found.get(peer[1]))


def test_local_users_tasks_and_those_not_known_are_told_apart() -> None:
    one = typists(
        p1=SocketOwner(1000, 1, 1),
        p2=SocketOwner(1001, 1, 2),
        p3=SocketOwner(1000, 1, 666),
        p4=None,
    )
    names = [one.of(scope("127.0.0.1", port)) for port in (1, 2, 3, 4)]
    assert len(set(names)) == 4
    assert names[0] == "127.0.0.1, user 1000"
    assert one.of(scope("127.0.0.1", 1)) == names[0]


@pytest.mark.parametrize("client", ["203.0.113.9", None])
def test_behind_a_proxy_on_this_machine_it_is_the_address_it_tells(client: str | None) -> None:
    one = typists(p5000=SocketOwner(33, 1, 1))
    assert "user" not in one.of(scope("127.0.0.1", client=client))


def test_others_are_counted_by_address_or_network_as_before() -> None:
    one = typists()
    assert one.of(scope("203.0.113.9")) == "203.0.113.9"
    assert one.of(scope("2001:db8::1")) == one.of(scope("2001:db8::2")) == "2001:db8::/64"


def test_one_user_alone_makes_nobody_else_wait() -> None:
    clock = FakeClock()
    attempts = LoginAttempts(clock)
    one = typists(p1=SocketOwner(1000, 1, 1), p2=SocketOwner(1001, 1, 2))
    owner, other = (one.of(scope("127.0.0.1", port)) for port in (1, 2))
    # As often as he is let, for a day.
    for _ in range(200):
        clock.advance(attempts.wait_s(other))
        attempts.failed(other)
        assert attempts.wait_s(owner) == 0
    assert attempts.wait_s(other) > FREE
