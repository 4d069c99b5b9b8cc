"""Packets to the stub: good ones get what the lookup says, bad ones harm nobody."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address
from struct import pack, unpack_from

import pytest

from dicode_mcp.executor.sandbox.gate import dns

ADDRESSES = (IPv4Address("198.18.0.1"), IPv6Address("fd64::1"))


def query(name: str | bytes, kind: int = dns.A, *, flags: int = 0x0100, count: int = 1) -> bytes:
    raw = name if isinstance(name, bytes) else encoded(name)
    return pack("!HHHHHH", 7, flags, count, 0, 0, 0) + raw + pack("!HH", kind, 1)


def encoded(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def ask(packet: bytes) -> tuple[bytes | None, list[tuple[str, int]]]:
    asked: list[tuple[str, int]] = []

    def lookup(name: str, kind: int) -> dns.Addresses | None:
        asked.append((name, kind))
        return ADDRESSES if name == "allowed.example" else None

    return dns.answer(packet, lookup), asked


def code(told: bytes | None) -> tuple[int, int]:
    """Give the code and the number of answers."""
    assert told is not None
    number, flags, questions, answers, *_ = unpack_from("!HHHHHH", told)
    assert number == 7
    assert flags & 0x8000
    assert questions <= 1
    return flags & 0xF, answers


@pytest.mark.parametrize(
    ("kind", "data"), [(dns.A, ADDRESSES[0].packed), (dns.AAAA, ADDRESSES[1].packed)]
)
def test_an_allowed_name_gets_an_address_that_stands_for_it(kind: int, data: bytes) -> None:
    told, asked = ask(query("AlloWed.eXample", kind))
    assert code(told) == (0, 1)
    assert asked == [("allowed.example", kind)]
    assert told is not None
    assert told.endswith(data)
    assert b"AlloWed" in told  # as it was asked, which some clients check


@pytest.mark.parametrize("kind", [2, 5, 6, 12, 15, 16, 33, 65, 255])
def test_other_kinds_of_an_allowed_name_have_no_records(kind: int) -> None:
    assert code(ask(query("allowed.example", kind))[0]) == (0, 0)


@pytest.mark.parametrize(
    "name",
    [
        "other.example",
        "x.allowed.example",
        b"\x05a b c\x07example\0",
        b"\x07allow\0d\x07example\0",
        b"\x01-\0",
        b"\0",
        encoded(".".join(["a" * 63] * 3 + ["a" * 61])),
    ],
)
def test_other_names_are_not_there(name: str | bytes) -> None:
    assert code(ask(query(name))[0]) == (3, 0)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (b"", None),
        (b"\0" * 11, None),
        (query("allowed.example") + b"\0" * 2000, None),
        (query("allowed.example", flags=0x8100), None),
        (query("allowed.example", flags=0x2800), 4),
        (query("allowed.example", count=0), 1),
        (query("allowed.example", count=2), 1),
        (query(b"\xc0\x0c"), 1),
        (query(b"\x3f" + b"a" * 10), 1),
        (query("allowed.example")[:-3], 1),
        (query(encoded(".".join(["a" * 63] * 5))), 1),
    ],
)
def test_malformed_packets_get_an_error_or_nothing(packet: bytes, expected: int | None) -> None:
    told, asked = ask(packet)
    assert asked == []
    if expected is None:
        assert told is None
    else:
        assert code(told) == (expected, 0)


def test_two_thousand_hostile_packets_do_no_harm() -> None:
    chance = random.Random(20240607)
    good = query("allowed.example", dns.AAAA)
    for _ in range(2000):
        packet = bytearray(
            good if chance.random() < 0.7 else chance.randbytes(chance.randrange(700))
        )
        for _ in range(chance.randrange(8)):
            if packet:
                packet[chance.randrange(len(packet))] = chance.randrange(256)
        if chance.random() < 0.3:
            packet = packet[: chance.randrange(len(packet) + 1)]
        told, asked = ask(bytes(packet))
        assert told is None or 12 <= len(told) <= 512 + 28
        for name, _ in asked:
            assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
            assert len(name) <= 253
