"""What bodies and queries become, and which are not taken."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from dicode_mcp.triggers.webhook.bodies import (
    Unreadable,
    Unsupported,
    content_type,
    read_body,
    read_query,
)


def read(kind: str | None, body: bytes) -> Any:
    headers = [] if kind is None else [("content-type", kind)]
    return read_body(content_type(headers), body)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/json", b'{"a": [1, null, "\xc3\xa9"]}', {"a": [1, None, "é"]}),
        ("application/json", b"3", 3),
        ("application/json", b'"text"', "text"),
        ("application/json", b"null", None),
        ("application/json", b"", None),
        ("Application/JSON; Charset=UTF-8", b"[1]", [1]),
        ("application/json", b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ("application/json; charset=latin-1", b'"\xe9"', "é"),
        ("application/cloudevents+json", b'{"a": 1}', {"a": 1}),
        ("application/json", b'"\\ud83d\\ude00"', "😀"),
        (
            "application/x-www-form-urlencoded",
            b"a=1&b=x+y&c=%C3%A9",
            {"a": "1", "b": "x y", "c": "é"},
        ),
        ("application/x-www-form-urlencoded", b"a=1&a=2&b=", {"a": ["1", "2"], "b": ""}),
        ("text/plain", b"hello", "hello"),
        ("text/plain; charset=iso-8859-1", b"\xe9", "é"),
        ("text/csv", b"a,b\n", "a,b\n"),
        (None, b"\0\1", {"content_type": "application/octet-stream", "base64": "AAE="}),
        ("image/png", b"\x89P", {"content_type": "image/png", "base64": "iVA="}),
        (
            "multipart/mixed; boundary=x",
            b"-",
            {"content_type": "multipart/mixed", "base64": "LQ=="},
        ),
    ],
)
def test_a_body_becomes_an_input(kind: str | None, body: bytes, expected: Any) -> None:
    assert read(kind, body) == expected


def part(head: str, body: bytes) -> bytes:
    return b"--x\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n"


def test_the_parts_of_a_form_are_texts_and_files() -> None:
    body = (
        part('Content-Disposition: form-data; name="who"', "Zoë".encode())
        + part(
            'Content-Disposition: form-data; name="pic"; filename="a.png"\r\n'
            "Content-Type: image/png",
            b"\x89P\r\n",
        )
        + part('Content-Disposition: form-data; name="tag"', b"1")
        + part('Content-Disposition: form-data; name="tag"', b"2")
        + b"--x--\r\n"
    )
    assert read("multipart/form-data; boundary=x", body) == {
        "who": "Zoë",
        "pic": {
            "filename": "a.png",
            "content_type": "image/png",
            "base64": base64.b64encode(b"\x89P\r\n").decode(),
        },
        "tag": ["1", "2"],
    }


@pytest.mark.parametrize(
    ("kind", "body", "why"),
    [
        ("application/json", b'{"password": "hunter2",}', "line 1 column"),
        ("application/json", b"{", "not JSON"),
        ("application/json", b"[" * 200_000, "nested too deeply"),
        ("application/json", b"NaN", "NaN"),
        ("application/json", b"-Infinity", "NaN"),
        ("application/json", b"9" * 10_000, "endless number"),
        ("application/json", b'"\xff"', "charset utf-8"),
        ("application/json", b'{"a": "\\ud800"}', "surrogate"),
        ("text/plain", b"\xff", "charset utf-8"),
        ("application/x-www-form-urlencoded", b"a=\xc3\xa9", "percent-encoded"),
        ("application/x-www-form-urlencoded", b"a=%ff", "percent-encoded"),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 1001), "more than 1000"),
        ("multipart/form-data", b"--x--", "boundary"),
        ("multipart/form-data; boundary=" + "x" * 71, b"--", "boundary"),
        ("multipart/form-data; boundary=x", b"nonsense", "malformed"),
        (
            "multipart/form-data; boundary=x",
            part("Content-Disposition: form-data", b"1") + b"--x--",
            "no name",
        ),
        (
            "multipart/form-data; boundary=x",
            part('Content-Disposition: form-data; name="a"', b"1"),
            "before its last boundary",
        ),
        (
            "multipart/form-data; boundary=x",
            part('Content-Disposition: form-data; name="a"', b"1") * 1001 + b"--x--",
            "more than 1000",
        ),
        (
            "multipart/form-data; boundary=x",
            part('Content-Disposition: form-data; name="a"', b"\xff") + b"--x--",
            "not UTF-8",
        ),
    ],
)
def test_a_malformed_body_is_told_without_being_shown(kind: str, body: bytes, why: str) -> None:
    with pytest.raises(Unreadable) as error:
        read(kind, body)
    assert why in error.value.why
    assert "hunter2" not in error.value.why


@pytest.mark.parametrize(
    "headers",
    [
        [("content-type", "application/json"), ("content-type", "application/json")],
        [("content-type", "json")],
        [("content-type", "a/b/c")],
        [("content-type", "application/ json")],
        [("content-type", "text/" + "x" * 300)],
        [("content-type", "text/plain; charset=klingon")],
        [("content-type", "text/plain; charset=base64")],
        [("content-type", "application/json; charset=idna")],
        [("content-type", "application/json"), ("content-encoding", "gzip")],
        [("content-encoding", "identity, br")],
    ],
)
def test_a_type_or_encoding_that_is_not_read_is_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Unsupported):
        content_type(headers)


def test_a_query_becomes_a_map() -> None:
    assert read_query("a=1&b=&c=x%20y&a=2") == {"a": ["1", "2"], "b": "", "c": "x y"}
    for odd in ("a=%ff", "&".join(["a=1"] * 1001)):
        with pytest.raises(Unreadable):
            read_query(odd)
