"""No form of a secret gets through, wherever it is cut and whatever stands around it."""

from __future__ import annotations

import base64
import html
import json
import random
import string
from urllib.parse import quote, quote_plus, urlencode

import pytest

from dicode_mcp.runs.redaction import Redactor, Stream, forms

SECRET = 'p/ä"ss+w&rd <7>'
PLAIN = "hunter2-hunter2"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nqm8YpTz4cZ0=\n-----END KEY-----\n"


def whole(redactor: Redactor, data: bytes) -> bytes:
    stream = redactor.stream()
    return stream.feed(data) + stream.flush()


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        json.dumps({"k": SECRET}),
        json.dumps({"k": SECRET}, ensure_ascii=False),
        json.dumps({"k": SECRET}).replace("/", "\\/"),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote(SECRET, safe="").lower(),
        urlencode({"token": SECRET}),
        html.escape(SECRET),
        repr(SECRET),
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.b64encode(b"x" + SECRET.encode() + b"yz").decode(),
        base64.b64encode(b"user:" + SECRET.encode()).decode(),
        base64.urlsafe_b64encode(b"to" + SECRET.encode() + b"!").decode(),
        json.dumps(json.dumps({"k": SECRET})),
        json.dumps(json.dumps({"k": SECRET}, ensure_ascii=False), ensure_ascii=False),
        base64.b64encode(json.dumps({"k": SECRET}).encode()).decode(),
        base64.b64encode(json.dumps({"k": SECRET}, ensure_ascii=False).encode()).decode(),
        repr(SECRET.encode()),
        ascii(SECRET),
    ],
)
def test_a_form_of_the_value_is_replaced_by_its_name(shown: str) -> None:
    out = Redactor({"TOKEN": SECRET}).text(f"before {shown} after")
    assert "[secret TOKEN]" in out
    assert out.startswith("before ")
    assert out.endswith(" after")
    assert not any(form in out.encode() for form in forms(SECRET))


def test_a_value_in_latin_1_is_found() -> None:
    out = Redactor({"TOKEN": SECRET}).data(b"<" + SECRET.encode("latin-1") + b">")
    assert out == b"<[secret TOKEN]>"


@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [47, 48, 57, 58, 114, 1000])
def test_a_long_value_in_base64_on_lines_is_found(width: int, end: str, size: int) -> None:
    value = "".join(random.Random(size).choices(string.ascii_letters, k=size))
    text = base64.b64encode(value.encode()).decode()
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    for shown in (end.join(lines), json.dumps(end.join(lines)), f"{end.join(lines)}{end}"):
        out = Redactor({"TOKEN": value}).text(shown)
        assert "[secret TOKEN]" in out
        assert not any(line[:-3] in out for line in lines if len(line) > 7)


def test_a_plain_value_has_few_forms() -> None:
    assert len(forms(PLAIN)) < 10, "each one costs time on every line of a log"


def test_other_text_stays_as_it_is() -> None:
    redactor = Redactor({"TOKEN": PLAIN})
    for text in ("", "hunter", "HUNTER2-HUNTER2", "huntr2 \udcff \0 ü", "hunter2-hunter"):
        assert redactor.text(text) == text


@pytest.mark.parametrize("seed", range(20))
def test_a_value_cut_anywhere_over_chunks_does_not_get_through(seed: int) -> None:
    chance = random.Random(seed)
    secrets = {"A": "aabaab", "B": "abaabaXYZ", "C": SECRET, "D": PEM}
    redactor = Redactor(secrets)
    pieces = [
        chance.choice([*secrets.values(), "aab", "a", "noise ", "\n", "abaaba"]) for _ in "x" * 60
    ]
    data = "".join(pieces).encode()
    stream, out, at = redactor.stream(), b"", 0
    while at < len(data):
        size = chance.randint(1, 9)
        out += stream.feed(data[at : at + size])
        at += size
    out += stream.flush()
    assert not any(form in out for secret in secrets.values() for form in forms(secret))
    assert out == whole(redactor, data)


def test_bytes_one_by_one_give_what_the_whole_gives() -> None:
    redactor = Redactor({"TOKEN": PLAIN, "PEM": PEM})
    data = f"x{PLAIN}y{PLAIN[:5]} {PEM}{PLAIN}{PLAIN} hunt".encode()
    stream = redactor.stream()
    out = b"".join(stream.feed(bytes([byte])) for byte in data) + stream.flush()
    assert out == redactor.text(data.decode()).encode()
    assert out.count(b"[secret TOKEN]") == 3


def test_a_stream_holds_back_no_more_than_the_beginning_of_a_value() -> None:
    stream = Redactor({"TOKEN": PLAIN}).stream()
    assert stream.feed(b"a line\n") == b"a line\n"
    assert stream.feed(b"another hun") == b"another "
    assert stream.feed(b"ting\n") == b"hunting\n"


def test_endless_repetition_is_held_in_bounded_memory() -> None:
    stream: Stream = Redactor({"A": "aaaa"}).stream()
    shown = sum(len(stream.feed(b"a" * 1000)) for _ in range(1000))
    assert shown == len("[secret A]")
    assert stream.flush() == b""


def test_overlapping_values_leave_nothing_of_either() -> None:
    out = Redactor({"A": "abcd", "B": "cdefgh"}).text("1abcdefgh2")
    assert out == "1[secret A]2"


def test_the_lines_of_a_key_file_are_found_alone() -> None:
    redactor = Redactor({"PEM": PEM})
    assert "MIIE" not in redactor.text("line 2 is MIIEvQIBADANBgkqhkiG9w0BAQEF.")
    assert "MIIE" not in redactor.text(f"'{PEM.strip()}'")
    assert redactor.text("END") == "END"


def test_json_values_are_cleaned_and_stay_json() -> None:
    redactor = Redactor({"PIN": "123456", "TOKEN": PLAIN})
    value = {"a": [PLAIN, {"x" + PLAIN: 123456}], "n": 7, "b": True, "none": None, "f": 0.5}
    cleaned = redactor.value(value)
    assert cleaned == {
        "a": ["[secret TOKEN]", {"x[secret TOKEN]": "[secret PIN]"}],
        "n": 7,
        "b": True,
        "none": None,
        "f": 0.5,
    }
    assert json.loads(redactor.json_text(json.dumps(value))) == cleaned


def test_a_value_too_short_to_be_found_is_told() -> None:
    redactor = Redactor({"PIN": "123", "TOKEN": PLAIN})
    assert redactor.too_short == ("PIN",)
    assert redactor.text(f"123 {PLAIN}") == "123 [secret TOKEN]"
    assert not Redactor({"PIN": "123"})
