"""``trigger.rate_limit``: its two forms, and what is no limit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dicode_mcp.spec.manifest import render_manifest
from dicode_mcp.spec.model import TaskSpec
from dicode_mcp.spec.trigger import RateLimit


def read(value: Any, **trigger: Any) -> TaskSpec:
    given = {"webhook": "/hooks/x", "rate_limit": value, **trigger}
    return TaskSpec.read({"name": "t", "runtime": "python", "trigger": given})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("60/m", RateLimit(limit=60, per=60.0)),
        ("10/30s", RateLimit(limit=10, per=30.0)),
        ("5 / 1h30m", RateLimit(limit=5, per=5400.0)),
        ({"limit": 5}, RateLimit(limit=5, per=60.0)),
        ({"limit": 5, "per": "d", "burst": 2}, RateLimit(limit=5, per=86400.0, burst=2)),
        ({"limit": 5, "by": "client"}, RateLimit(limit=5, by="client")),
        (None, None),
    ],
)
def test_a_limit_is_read_from_text_or_map(value: Any, expected: RateLimit | None) -> None:
    assert read(value).trigger.rate_limit == expected


@pytest.mark.parametrize(
    "value",
    [
        "60",
        "/m",
        "x/m",
        "0/m",
        "-1/m",
        "1.5/m",
        "1/0s",
        "1/",
        "1/m/m",
        "9999999999/m",
        60,
        True,
        ["60/m"],
        {"limit": 0},
        {"limit": -1},
        {"limit": 1, "per": 0},
        {"limit": 1, "burst": 0},
        {"limit": 1, "by": "key"},
        {"limit": 1, "each": "m"},
        {},
    ],
)
def test_what_is_no_limit_is_a_load_error(value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        read(value)
    assert all("rate_limit" in error["loc"] for error in refused.value.errors())


def test_a_limit_belongs_to_a_webhook() -> None:
    with pytest.raises(ValidationError, match="belongs to a webhook"):
        read("60/m", webhook=None, manual=True)


def test_a_limit_is_shown_in_the_manifest_as_it_can_be_written() -> None:
    shown = render_manifest(read("10/30s"))["trigger"]["rate_limit"]
    assert read(shown) == read("10/30s")
