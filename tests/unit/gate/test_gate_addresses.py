"""Addresses in every spelling, and what kind of place each is."""

from __future__ import annotations

import pytest

from dicode_mcp.executor.sandbox.gate.addresses import Kind, is_local_name, kind, parse

PRIVATE = "10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.254 192.168.0.1 192.168.255.255 " + (
    "100.64.0.1 100.127.255.254 fc00::1 fd00:ec2::254 fdff:ffff::1 fec0::1 64:ff9b:1::a00:1 "
    "::ffff:10.0.0.1 ::ffff:a00:1 0:0:0:0:0:ffff:c0a8:1 64:ff9b::10.0.0.1 64:ff9b::c0a8:1 "
    "::ffff:0:10.1.2.3 FD12:3456:789A::1"
)
LOOPBACK = "127.0.0.1 127.0.1.1 127.255.255.254 127.1.2.3 ::1 0:0:0:0:0:0:0:1 ::ffff:127.0.0.1 " + (
    "::ffff:7f00:1 64:ff9b::7f00:1 64:ff9b::127.0.0.1 ::FFFF:127.8.8.8 ::ffff:0:127.0.0.1"
)
LINK_LOCAL = "169.254.0.1 169.254.169.254 169.254.255.255 fe80::1 fe80::1%lo febf::1 " + (
    "::ffff:169.254.169.254 ::ffff:a9fe:a9fe 64:ff9b::a9fe:a9fe"
)
SPECIAL = "0.0.0.0 0.1.2.3 192.0.0.8 192.88.99.1 198.18.0.1 198.19.255.255 224.0.0.1 " + (
    "239.255.255.255 240.0.0.1 255.255.255.255 :: ::2 ::127.0.0.1 ::10.0.0.1 100::1 2001::1 "
    "2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1 2002::1 2002:a00:1:: "
    "2002:7f00:1::1 2002:a9fe:a9fe::1 2002:808:808::1 3ffe::1 5f00::1 ff02::1 ff05::2 "
    "::ffff:0.0.0.0 ::ffff:224.0.0.1 ::ffff:198.18.0.1 64:ff9b::e000:1"
)
PUBLIC = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 " + (
    "128.0.0.1 169.253.1.1 169.255.1.1 172.15.255.255 172.32.0.0 192.167.1.1 192.169.0.0 "
    "192.0.1.1 192.0.2.1 198.17.255.255 198.20.0.0 203.0.113.7 223.255.255.255 2606:4700::1111 "
    "2a00:1450::1 2001:db8::1 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::808:808"
)
TABLE = [
    (text, found)
    for texts, found in (
        (PRIVATE, Kind.PRIVATE),
        (LOOPBACK, Kind.LOOPBACK),
        (LINK_LOCAL, Kind.LINK_LOCAL),
        (SPECIAL, Kind.SPECIAL),
        (PUBLIC, Kind.PUBLIC),
    )
    for text in texts.split()
]


def test_the_table_is_long() -> None:
    assert sum(found is not Kind.PUBLIC for _, found in TABLE) >= 60


@pytest.mark.parametrize(("text", "found"), TABLE)
def test_each_address_is_known_for_what_it_is(text: str, found: Kind) -> None:
    address = parse(text)
    assert address is not None
    assert kind(address) is found


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f.1", "2130706433", "1.2.3.4.5"])
def test_what_is_no_address_is_not_taken_for_one(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("db", True),
        ("db.internal", True),
        ("printer.local", True),
        ("a.b.home.arpa", True),
        ("internal.example.com", False),
        ("example.com", False),
        ("notlocal", True),
        ("x.notlocal", False),
    ],
)
def test_names_of_private_networks_are_known_by_their_form(name: str, local: bool) -> None:
    assert is_local_name(name) is local
