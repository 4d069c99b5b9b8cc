"""What a client says to a proxy: HTTP, with CONNECT or a whole URL, and SOCKS 5. No rules here.

For programs that do not ask for names over TCP: they leave names to the proxy.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

_HEAD_S = 30.0
_LONGEST_HEAD = 64 * 1024
_CONNECT = re.compile(rb"CONNECT (\S+) HTTP/1\.[01]\r?\n")
_REQUEST = re.compile(rb"([!-~]+) (http://\S+) (HTTP/1\.[01])\r?\n")
_HOP = (b"proxy-authorization", b"proxy-connection", b"connection", b"keep-alive")
_SOCKS = 5
_SOCKS_CONNECT = 1
_SOCKS_FOUR, _SOCKS_NAME, _SOCKS_SIX = 1, 3, 4
_DONE, _NOT_ALLOWED, _NOT_REACHED, _NO_COMMAND, _NO_KIND = 0, 2, 4, 7, 8


class Unclear(Exception):
    """What was said is no request that can be served; it was answered as far as it can be."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A place a client wants to be connected to, and what it is to be told."""

    host: str
    port: int
    done: bytes
    refused: bytes
    failed: bytes
    first: bytes = b""
    """What goes to the place before anything else."""


def variables(port: int) -> Mapping[str, str]:
    """Give what a program finds a proxy of this machine by, and how it may ask for names."""
    url = f"http://127.0.0.1:{port}"
    named = {
        "HTTP_PROXY": url,
        "HTTPS_PROXY": url,
        # Not SOCKS: some libraries fail at once where they lack a module for it.
        "ALL_PROXY": url,
        "SOCKS_PROXY": f"socks5h://127.0.0.1:{port}",
        "NO_PROXY": "",
    }
    small = {name.lower(): value for name, value in named.items()}
    # The C library then asks for names by TCP, and any program that uses it needs no proxy.
    return {**named, **small, "RES_OPTIONS": "use-vc"}


async def read(client: socket.socket) -> Wish:
    """Read what a client wants. Raises ``Unclear``, ``OSError``."""
    try:
        async with asyncio.timeout(_HEAD_S):
            first = await _some(client, 1)
            if first[0] == _SOCKS:
                return await _read_socks(client)
            return await _read_http(client, first)
    except TimeoutError:
        raise Unclear from None


async def _some(client: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    got = b""
    while len(got) < size:
        more = await loop.sock_recv(client, size - len(got))
        if not more:
            raise Unclear
        got += more
    return got


# ── HTTP ──


async def _read_http(client: socket.socket, head: bytes) -> Wish:
    loop = asyncio.get_running_loop()
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        more = await loop.sock_recv(client, 4096) if len(head) < _LONGEST_HEAD else b""
        if not more:
            raise Unclear
        head += more
    return read_head(head) or await _unclear(client)


async def _unclear(client: socket.socket) -> Wish:
    text = "this is a proxy: CONNECT host:port, or http://host/path as a whole\n"
    await asyncio.get_running_loop().sock_sendall(client, _said("400 Bad Request", text))
    raise Unclear


def read_head(head: bytes) -> Wish | None:
    """Read a request as far as its empty line, with what came after; None for another one."""
    tunnel = _CONNECT.match(head)
    if tunnel is not None:
        end = _end_of_head(head)
        place = _place(tunnel[1].decode("latin-1"))
        done = b"HTTP/1.1 200 Connection established\r\n\r\n"
        return None if place is None else _wish(*place, done, head[end:])
    whole = _REQUEST.match(head)
    if whole is None:
        return None
    try:
        url = urlsplit(whole[2].decode("ascii"))
        host, port = url.hostname, url.port or 80
    except ValueError:
        return None
    if not host:
        return None
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    start = b"%s %s %s\r\n" % (whole[1], path.encode(), whole[3])
    return _wish(host, port, b"", start + _own_headers(head[whole.end() :]))


def _end_of_head(head: bytes) -> int:
    ends = [at + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if (at := head.find(mark)) >= 0]
    return min(ends)


def _own_headers(rest: bytes) -> bytes:
    """Give headers, and what follows, without those for a proxy; one request a connection."""
    head, mark, body = rest.partition(b"\r\n\r\n")
    if not mark:
        head, mark, body = rest.partition(b"\n\n")
    kept = [b"Connection: close"]
    for line in head.splitlines():
        if line and line.partition(b":")[0].strip().lower() not in _HOP:
            kept.append(line)
    return b"\r\n".join(kept) + b"\r\n\r\n" + body


def _place(text: str) -> tuple[str, int] | None:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or len(port) > 5 or not 1 <= int(port) <= 65535:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def _wish(host: str, port: int, done: bytes, first: bytes) -> Wish:
    refused = "the task may not connect there; its log names the permission to add\n"
    failed = "the place cannot be connected to; the task's log says why\n"
    return Wish(
        host, port, done, _said("403 Forbidden", refused), _said("502 Bad Gateway", failed), first
    )


def _said(status: str, text: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
    return f"{head}Connection: close\r\n\r\n{text}".encode()


# ── SOCKS ──


async def _read_socks(client: socket.socket) -> Wish:
    loop = asyncio.get_running_loop()
    methods = await _some(client, (await _some(client, 1))[0])
    if 0 not in methods:
        await loop.sock_sendall(client, bytes([_SOCKS, 0xFF]))
        raise Unclear
    await loop.sock_sendall(client, bytes([_SOCKS, 0]))
    version, command, _, kind = await _some(client, 4)
    if version != _SOCKS or command != _SOCKS_CONNECT:
        await loop.sock_sendall(client, _reply(_NO_COMMAND))
        raise Unclear
    if kind == _SOCKS_NAME:
        host = (await _some(client, (await _some(client, 1))[0])).decode("latin-1")
    elif kind == _SOCKS_FOUR:
        host = str(IPv4Address(await _some(client, 4)))
    elif kind == _SOCKS_SIX:
        host = str(IPv6Address(await _some(client, 16)))
    else:
        await loop.sock_sendall(client, _reply(_NO_KIND))
        raise Unclear
    port = int.from_bytes(await _some(client, 2), "big")
    return Wish(host, port, _reply(_DONE), _reply(_NOT_ALLOWED), _reply(_NOT_REACHED))


def _reply(code: int) -> bytes:
    return bytes([_SOCKS, code, 0, _SOCKS_FOUR, 0, 0, 0, 0, 0, 0])
