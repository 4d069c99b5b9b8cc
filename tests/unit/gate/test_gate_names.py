"""Rules of ``permissions.net`` against names, ports and addresses."""

from __future__ import annotations

import pytest

from dicode_mcp.executor.sandbox.gate.addresses import parse
from dicode_mcp.executor.sandbox.gate.names import Rules


@pytest.mark.parametrize(
    ("rule", "name", "port", "allowed"),
    [
        ("api.example.com", "api.example.com", 443, True),
        ("api.example.com", "api.example.com", 8443, True),
        ("API.Example.com.", "api.example.com", 443, True),
        ("api.example.com", "example.com", 443, False),
        ("api.example.com", "x.api.example.com", 443, False),
        ("api.example.com", "api.example.com.evil.net", 443, False),
        ("api.example.com:443", "api.example.com", 443, True),
        ("api.example.com:443", "api.example.com", 80, False),
        ("*.example.com", "a.example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "aexample.com", 443, False),
        ("*.example.com", "example.com.evil.net", 443, False),
        ("*.example.com:8443", "a.example.com", 443, False),
        ("*.example.com:8443", "a.example.com", 8443, True),
        ("*", "anything.at.all", 1, True),
        ("1.2.3.4", "1.2.3.4", 80, False),
    ],
)
def test_a_rule_allows_its_names_and_no_others(
    rule: str, name: str, port: int, allowed: bool
) -> None:
    assert Rules.read([rule]).name(name, port) is allowed


@pytest.mark.parametrize(
    ("rule", "address", "port", "allowed"),
    [
        ("1.2.3.4", "1.2.3.4", 80, True),
        ("1.2.3.4", "::ffff:1.2.3.4", 80, True),
        ("1.2.3.4:443", "1.2.3.4", 80, False),
        ("[2001:db8::1]:443", "2001:db8:0::1", 443, True),
        ("2001:db8::1", "2001:db8::1", 443, True),
        ("2001:db8::1", "2001:db8::2", 443, False),
        ("10.0.0.1:5432", "10.0.0.1", 5432, True),
        ("169.254.169.254", "169.254.169.254", 80, True),
        ("localhost:5432", "127.0.0.1", 5432, True),
        ("localhost:5432", "::1", 5432, True),
        ("localhost:5432", "127.0.0.2", 5432, False),
        ("localhost:5432", "127.0.0.1", 5433, False),
        ("app.localhost", "127.0.0.1", 80, True),
        ("*", "8.8.8.8", 53, True),
        ("*", "10.0.0.1", 80, False),
        ("*", "127.0.0.1", 80, False),
        ("*", "169.254.169.254", 80, False),
        ("*", "::ffff:10.0.0.1", 80, False),
        ("*", "64:ff9b::a00:1", 80, False),
        ("example.com", "8.8.8.8", 443, False),
    ],
)
def test_a_bare_address_needs_to_be_listed_or_public(
    rule: str, address: str, port: int, allowed: bool
) -> None:
    found = parse(address)
    assert found is not None
    assert Rules.read([rule]).address(found, port) is allowed


@pytest.mark.parametrize(
    ("rules", "name", "address", "allowed"),
    [
        (["api.example.com"], "api.example.com", "8.8.8.8", True),
        (["api.example.com"], "api.example.com", "10.0.0.1", False),
        (["api.example.com"], "api.example.com", "127.0.0.1", False),
        (["api.example.com"], "api.example.com", "169.254.169.254", False),
        (["api.example.com", "10.0.0.1"], "api.example.com", "10.0.0.1", True),
        (["api.example.com", "10.0.0.1"], "api.example.com", "10.0.0.2", False),
        (["api.example.com", "10.0.0.1:80"], "api.example.com", "10.0.0.1", False),
        (["db.internal"], "db.internal", "10.0.0.1", True),
        (["db.internal"], "db.internal", "127.0.0.1", False),
        (["metadata.internal"], "metadata.internal", "169.254.169.254", False),
        (["db"], "db", "192.168.1.1", True),
        (["*.corp.internal"], "db.corp.internal", "10.0.0.1", True),
        (["*"], "db.internal", "10.0.0.1", False),
        (["*"], "rebound.example.com", "::ffff:127.0.0.1", False),
        (["*", "127.0.0.1"], "rebound.example.com", "127.0.0.1", True),
    ],
)
def test_a_name_leads_to_private_places_only_where_the_manifest_says_so(
    rules: list[str], name: str, address: str, allowed: bool
) -> None:
    found = parse(address)
    assert found is not None
    assert Rules.read(rules).leads(name, found, 443) is allowed


def test_ports_to_open_from_the_start_are_those_named_and_the_common_ones() -> None:
    assert Rules.read(["a.example:5432", "b.example:443"]).ports == (5432, 443)
    assert Rules.read(["a.example:5432", "b.example"]).ports == (5432, 80, 443)
    assert Rules.read(["*"]).ports == (80, 443)
