"""Addresses in dicode.yaml: the server's own from outside, and those of its proxies."""

from __future__ import annotations

import pytest

from dicode_mcp.config.addresses import check_network, check_public_url


def test_a_public_url_loses_its_last_slash() -> None:
    assert check_public_url("https://hooks.example.org/") == "https://hooks.example.org"
    assert check_public_url("https://example.org:8443/dicode/") == "https://example.org:8443/dicode"


@pytest.mark.parametrize(
    "text",
    [
        "https://",
        "https://:443",
        "https://example.org:port",
        "https://example.org:99999",
        "https://me:pw@example.org",
        "https://example.org/?a=1",
        "https://example.org/#top",
        "https://example.org/a b",
        "https://[::1",
    ],
)
def test_what_is_no_plain_url_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a URL|must not hold") as refused:
        check_public_url(text)
    assert "pw" not in str(refused.value)


def test_an_address_or_network_is_brought_to_its_usual_form() -> None:
    assert check_network(" 10.0.0.7 ") == "10.0.0.7"
    assert check_network("10.1.2.3/8") == "10.0.0.0/8"
    assert check_network("2001:DB8::1") == "2001:db8::1"


@pytest.mark.parametrize("text", ["*", "proxy.local", "10.0.0.300", "0.0.0.0/0", "::/0", ""])
def test_names_and_everybody_are_no_proxies(text: str) -> None:
    with pytest.raises(ValueError, match=r"IP address|everybody"):
        check_network(text)
