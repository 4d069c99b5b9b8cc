from __future__ import annotations

import random

import pytest

from dicode_mcp.spec.quantities import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("90s", 90),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("7d", 604800),
        ("1d2h", 93600),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("10ns", 1e-8),
        ("90", 90),
        ("0", 0),
        ("+5s", 5),
        (90, 90),
        (1.5, 1.5),
    ],
)
def test_a_duration_is_read(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "s", "5x", "5 s", "1h 30m", "-5s", "-5", "1e3s", "5S", "1h-30m", "٣s", "5s\n"),
        *(True, None, [], -1, float("nan"), float("inf"), "9" * 50 + "d", "1" * 70, 10**400),
    ],
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"must|longer"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (60, "1m0s"),
        (90, "1m30s"),
        (5400, "1h30m0s"),
        (1.5, "1.5s"),
        (0.5, "500ms"),
        (0.00025, "250µs"),
        (1e-9, "1ns"),
        (86400, "24h0m0s"),
    ],
)
def test_a_duration_is_written_as_go_does(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_durations_survive_writing_and_reading() -> None:
    chance = random.Random(7)
    for _ in range(2_000):
        nanos = chance.randrange(10 ** chance.randrange(1, 16))
        seconds = parse_duration(f"{nanos}ns")
        assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256MiB", 256 * 2**20),
        ("1GB", 10**9),
        ("1.5KiB", 1536),
        ("10Mi", 10 * 2**20),
        ("10 kB", 10_000),
        ("0", 0),
        ("12B", 12),
        (4096, 4096),
    ],
)
def test_a_size_is_read(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1 apple", "512M", "1.5B", True, None, 1.5, -1, "9" * 40, float("nan")]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"must|clear|unit"):
        parse_size(text)


def test_an_ambiguous_unit_says_both_meanings() -> None:
    with pytest.raises(ValueError, match=r"512MiB .* 512MB"):
        parse_size("512m")


def test_sizes_survive_writing_and_reading() -> None:
    chance = random.Random(7)
    for _ in range(1_000):
        size = chance.randrange(2**50) >> chance.randrange(50) << chance.randrange(9)
        assert parse_size(format_size(size)) == size
    assert format_size(256 * 2**20) == "256MiB"
    assert format_size(10**9) == "1GB"
