"""Small parts of the gate: messages, addresses for names, pace, what is told, the pump."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from ipaddress import IPv4Address, IPv6Address
from struct import pack, unpack_from

import pytest

from dicode_mcp.cage.network import route_message
from dicode_mcp.executor.sandbox.gate import fakes
from dicode_mcp.executor.sandbox.gate.addresses import Kind, kind
from dicode_mcp.executor.sandbox.gate.calls import Call, read_address
from dicode_mcp.executor.sandbox.gate.outside import Outside
from dicode_mcp.executor.sandbox.gate.pace import Pace
from dicode_mcp.executor.sandbox.gate.pump import Pump
from dicode_mcp.executor.sandbox.gate.refusals import MOST, Refusals
from dicode_mcp.runs.logs import Level, read_line


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_route_that_makes_every_address_local_is_spelled_as_the_kernel_wants(
    family: int,
) -> None:
    message = route_message(family)
    size, kind_, flags, _, _ = unpack_from("=IHHII", message)
    assert (size, kind_, flags) == (len(message), 24, 0x405)
    told = unpack_from("=BBBBBBBBI", message, 16)
    assert told == (family, 0, 0, 0, 255, 3, 254, 2, 0)
    assert unpack_from("=HHI", message, 28) == (8, 4, 1)


def test_a_name_keeps_its_addresses_and_both_lead_back_to_it() -> None:
    book = fakes.Book()
    first, second = book.number("a.example"), book.number("b.example")
    assert book.number("a.example") == first
    assert first is not None
    assert second is not None
    assert first != second
    assert book.name(fakes.address_4(second)) == "b.example"
    assert book.name(fakes.address_6(first)) == "a.example"
    assert book.name(IPv4Address("198.18.0.0")) is None
    assert book.name(IPv4Address("198.18.0.99")) is None
    assert book.name(IPv4Address("8.8.8.8")) is None
    assert book.name(IPv6Address("::1")) is None


def test_addresses_that_stand_for_names_are_never_sent_to() -> None:
    for address in (fakes.address_4(1), fakes.address_4(fakes.MOST_NAMES), fakes.address_6(1)):
        assert fakes.is_fake(address)
        assert kind(address) is not Kind.PUBLIC


def test_names_are_limited_in_number() -> None:
    book = fakes.Book()
    assert all(book.number(f"{n}.example") for n in range(fakes.MOST_NAMES))
    assert book.number("one.more") is None
    assert book.number("0.example") == 1


def test_pace_lets_a_burst_pass_and_then_so_many_a_second() -> None:
    pace = Pace(rate=10, burst=20, now=0.0)
    for _ in range(20):
        assert pace.rest == 0
        pace.take(0.0)
    assert 0 < pace.rest <= 1
    pace.take(100.0)
    assert pace.rest == 0


def test_what_is_refused_is_told_once_and_not_for_ever() -> None:
    lines: list[str] = []
    refusals = Refusals(lines.append)
    for number in range(100):
        refusals.blocked(f"h{number}:1", f"h{number}:1")
        refusals.blocked(f"h{number}:1", f"h{number}:1")
    assert len(lines) == MOST + 1
    level, text = read_line("stderr", lines[0])
    assert level is Level.SECURITY
    assert text == 'blocked: connect h0:1 - add to task.yaml: permissions.net: ["h0:1"]'
    assert "further" in json.loads(lines[-1][1:])["m"]
    assert refusals.wanted == ("h0:1", "h1:1", "h2:1", "h3:1", "h4:1")


@pytest.mark.parametrize(
    ("data", "call"),
    [
        (pack("=H", 2) + pack("!H", 443) + bytes([1, 2, 3, 4]), ("1.2.3.4", 443)),
        (
            pack("=H", 10) + pack("!HI", 53, 0) + IPv6Address("2001:db8::1").packed,
            ("2001:db8::1", 53),
        ),
        (
            pack("=H", 10) + pack("!HI", 80, 0) + IPv6Address("::ffff:1.2.3.4").packed,
            ("1.2.3.4", 80),
        ),
        (pack("=H", 1) + b"/run/x.sock", None),
        (pack("=H", 0) + b"\0" * 14, None),
        (b"\2\0", None),
        (pack("=H", 10) + b"\0" * 10, None),
    ],
)
def test_what_connect_is_given_is_read(data: bytes, call: tuple[str, int] | None) -> None:
    found = read_address(data)
    assert (found and (str(found.address), found.port)) == call
    assert found is None or isinstance(found, Call)


async def test_a_slow_reader_slows_the_sender_and_loses_nothing() -> None:
    loop = asyncio.get_running_loop()
    ours, inner = socket.socketpair()
    outer, theirs = socket.socketpair()
    for each in (ours, inner, outer, theirs):
        each.setblocking(False)
    data = bytes(range(256)) * 40_000
    pump = Pump(inner, outer, bytearray(64 * 1024))

    async def write() -> None:
        await loop.sock_sendall(ours, data)
        ours.shutdown(socket.SHUT_WR)

    async def read() -> bytes:
        got = bytearray()
        while more := await loop.sock_recv(theirs, 7000):
            got += more
        await loop.sock_sendall(theirs, b"thanks")
        theirs.shutdown(socket.SHUT_WR)
        return bytes(got)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        moving = group.create_task(pump.run(10))
        group.create_task(write())
        reading = group.create_task(read())
    assert reading.result() == data
    assert moving.result() is True
    assert await loop.sock_recv(ours, 100) == b"thanks"
    assert (pump.sent, pump.received) == (len(data), 6)
    for each in (ours, inner, outer, theirs):
        each.close()


async def test_a_connection_on_which_nothing_moves_is_given_up() -> None:
    ours, inner = socket.socketpair()
    outer, theirs = socket.socketpair()
    for each in (inner, outer):
        each.setblocking(False)
    async with asyncio.timeout(10):
        assert await Pump(inner, outer, bytearray(1024)).run(0.05) is False
    for each in (ours, inner, outer, theirs):
        each.close()


async def test_connections_of_tasks_are_marked_while_they_last() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        outside = Outside(own_ports=lambda: (port,))
        address = IPv4Address("127.0.0.1")
        assert outside.is_server(address, port)
        assert not outside.is_server(address, port + 1)
        assert not outside.is_server(IPv4Address("1.1.1.1"), port)
        made = await outside.connect(address, port)
        inode = os.fstat(made.fileno()).st_ino
        assert outside.is_ours(inode)
        outside.release(made)
        assert not outside.is_ours(inode)
        (await loop.sock_accept(server))[0].close()
        outside.close()


async def test_a_name_is_looked_up_once_for_a_while() -> None:
    asked: list[str] = []

    def resolve(name: str) -> list[str]:
        asked.append(name)
        if name == "bad.example":
            raise OSError("no such name")
        return ["1.2.3.4", "::ffff:10.0.0.1", "nonsense"]

    outside = Outside(resolve)
    await outside.look_up("a.example")
    found = await outside.look_up("a.example")
    assert [str(each) for each in found] == ["1.2.3.4", "10.0.0.1"]
    with pytest.raises(OSError, match="no such name"):
        await outside.look_up("bad.example")
    assert asked == ["a.example", "bad.example"]
    outside.close()
