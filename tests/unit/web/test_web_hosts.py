"""The Host and Origin table: what may name this server, and whose pages may call it."""

from __future__ import annotations

import pytest

from dicode_mcp.web.hosts import Authority, HostPolicy, is_loopback, parse_authority

LOCAL = HostPolicy()
NAMED = HostPolicy(["Dicode.example.com", "other.test:8443"], ["https://chat.example"])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LocalHost:1",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]:80",
        "[::1]",
    ],
)
def test_loopback_names_are_ours_with_any_port(host: str) -> None:
    assert LOCAL.knows_host(host)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:8080",
        "evil.example:8080",
        "localhost:8080:8080",
        "localhost:",
        "localhost:abc",
        "localhost:99999",
        "localhost:-1",
        "localhost@evil.example",
        "evil.example#localhost",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "0.0.0.0:8080",
        "[::]",
        "[::1",
        "::1",
        "[127.0.0.1]",
        "localhost localhost",
        "localhost,evil.example",
        "dicode.example.com",
    ],
)
def test_other_names_are_not(host: str | None) -> None:
    assert not LOCAL.knows_host(host)


def test_configured_names_are_ours_with_their_port_or_any() -> None:
    assert NAMED.knows_host("dicode.example.com")
    assert NAMED.knows_host("dicode.example.com:444")
    assert NAMED.knows_host("other.test:8443")
    assert not NAMED.knows_host("other.test")
    assert not NAMED.knows_host("other.test:80")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8080", "localhost:8080"),
        ("http://localhost:8080", "127.0.0.1:8080"),
        ("http://[::1]:8080", "localhost:8080"),
        ("http://localhost", "localhost"),
        ("https://dicode.example.com", "dicode.example.com"),
        ("https://dicode.example.com:443", "dicode.example.com"),
        ("https://chat.example", "localhost:8080"),
        ("HTTPS://CHAT.example", "localhost:8080"),
    ],
)
def test_our_own_pages_and_allowed_origins_may_call(origin: str, host: str) -> None:
    assert NAMED.knows_origin(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "localhost:8080"),
        ("", "localhost:8080"),
        ("http://evil.example", "localhost:8080"),
        ("http://localhost:3000", "localhost:8080"),
        ("http://localhost", "localhost:8080"),
        ("http://localhost:8080.evil.example", "localhost:8080"),
        ("http://localhost:8080/path", "localhost:8080"),
        ("http://user@localhost:8080", "localhost:8080"),
        ("file://", "localhost:8080"),
        ("ftp://localhost:8080", "localhost:8080"),
        ("http://chat.example", "localhost:8080"),
        ("https://chat.example.evil", "localhost:8080"),
        ("https://[::1", "localhost:8080"),
        ("chrome-extension://abcdef", "localhost:8080"),
    ],
)
def test_foreign_pages_may_not(origin: str, host: str) -> None:
    assert not NAMED.knows_origin(origin, host)


def test_authorities_are_read_strictly() -> None:
    assert parse_authority("a-b.c:1") == Authority("a-b.c", 1)
    assert parse_authority("[fe80::1]:1") == Authority("fe80::1", 1)
    assert parse_authority("a b") is None


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
