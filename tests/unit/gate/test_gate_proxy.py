"""What a client says to a proxy, and the place where connections made for a run arrive."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address

import pytest

from dicode_mcp.executor.sandbox.gate import proxy
from dicode_mcp.executor.sandbox.gate.doors import Hall


@pytest.mark.parametrize(
    ("head", "host", "port"),
    [
        (b"CONNECT api.example.com:443 HTTP/1.1\r\n\r\n", "api.example.com", 443),
        (b"CONNECT api.example.com:443 HTTP/1.0\nHost: x\n\n", "api.example.com", 443),
        (b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n\r\n", "2001:db8::1", 8443),
        (b"GET http://api.example.com HTTP/1.1\r\n\r\n", "api.example.com", 80),
        (b"GET http://u:p@API.example.com:8080/a?b HTTP/1.1\r\n\r\n", "api.example.com", 8080),
    ],
)
def test_a_request_says_where_to(head: bytes, host: str, port: int) -> None:
    wish = proxy.read_head(head)
    assert wish is not None
    assert (wish.host, wish.port) == (host, port)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET https://api.example.com/ HTTP/1.1\r\n\r\n",
        b"GET ftp://api.example.com/ HTTP/1.1\r\n\r\n",
        b"GET http:///path HTTP/1.1\r\n\r\n",
        b"GET http://a:99999/ HTTP/1.1\r\n\r\n",
        b"CONNECT api.example.com HTTP/1.1\r\n\r\n",
        b"CONNECT api.example.com:0 HTTP/1.1\r\n\r\n",
        b"CONNECT api.example.com:123456 HTTP/1.1\r\n\r\n",
        b"CONNECT api.example.com:443\r\n\r\n",
        b"CONNECT a:1 b:2 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
def test_what_is_no_request_for_a_proxy_is_none(head: bytes) -> None:
    assert proxy.read_head(head) is None


def test_a_whole_url_becomes_a_request_for_its_server_and_the_last_on_its_connection() -> None:
    wish = proxy.read_head(
        b"POST http://a.example:81/p?q=1 HTTP/1.1\r\nHost: a.example:81\r\nX-Kept: 1\r\n"
        b"PROXY-Authorization: secret\r\nConnection: keep-alive\r\n\r\nbody\r\n\r\nmore"
    )
    assert wish is not None
    assert wish.first == (
        b"POST /p?q=1 HTTP/1.1\r\nConnection: close\r\nHost: a.example:81\r\nX-Kept: 1\r\n"
        b"\r\nbody\r\n\r\nmore"
    )
    assert wish.done == b""


def test_what_is_sent_with_a_connect_goes_on_unread() -> None:
    wish = proxy.read_head(b"CONNECT a.example:443 HTTP/1.1\r\nA: b\r\n\r\n\x16\x03\r\n\r\n")
    assert wish is not None
    assert wish.first == b"\x16\x03\r\n\r\n"


async def test_a_request_without_an_end_is_given_up() -> None:
    client, server = socket.socketpair()
    with client, server:
        server.setblocking(False)
        client.setblocking(False)
        asked = asyncio.create_task(proxy.read(server))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"GET http://a/ HTTP/1.1\r\n")
        for _ in range(70):
            await loop.sock_sendall(client, b"X: " + b"y" * 1020 + b"\r\n")
        with pytest.raises(proxy.Unclear):
            await asked


async def test_a_stranger_who_comes_into_the_hall_has_no_place() -> None:
    hall = Hall()
    with hall.listener, hall.lead(IPv4Address("10.0.0.1"), 5432) as made:
        hall.listener.setblocking(True)
        first, _ = hall.listener.accept()
        with first, socket.create_connection(("127.0.0.1", hall.port)):
            second, _ = hall.listener.accept()
            with second:
                assert hall.place(first) == (IPv4Address("10.0.0.1"), 5432)
                assert hall.place(first) is None
                assert hall.place(second) is None
        assert made.getpeername() == ("127.0.0.1", hall.port)
