"""Keeping secret values out of text: every form of every value is replaced by its name.

Works on whole texts, on JSON values, and on streams of bytes whose chunks may cut a value anywhere.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import quote, quote_plus

MIN_LENGTH = 4
"""Characters; a shorter value is not looked for, since it would be found everywhere."""
MIN_LINE = 8
"""Characters a line of a value of several lines has to have to be looked for by itself."""

_PERCENT = re.compile(rb"%[0-9A-F]{2}")

_HOST = re.compile(r"[A-Za-z0-9._-]+")

Values = Mapping[str, str] | Iterable[tuple[str, str]]
"""Values by name, or (name, value) pairs: a name may then have several."""

Span = tuple[int, int, bytes]
"""Where a value stands (from, to) and what takes its place."""


def _pairs_of(values: Values) -> Iterable[tuple[str, str]]:
    if isinstance(values, Mapping):
        return cast("Mapping[str, str]", values).items()
    return values


def mark(name: str) -> str:
    """Give what is written where the value of ``name`` was."""
    return f"[secret {name}]"


class Redactor:
    """Finds the values of some secrets. Any number of streams may share one.

    What it learns later it finds in all that comes later, in every stream.
    """

    def __init__(self, values: Values) -> None:
        self.too_short: tuple[str, ...] = ()
        """The names whose values are too short to be looked for."""
        self._forms: tuple[tuple[bytes, bytes], ...] = ()
        self._pairs: dict[tuple[str, str], None] = {}
        self.learn(values)

    def learn(self, values: Values) -> None:
        """Look for more values. A name may have several: its earlier ones are still found."""
        pairs = sorted(set(_pairs_of(values)))
        short = {name for name, value in pairs if len(value) < MIN_LENGTH}
        self.too_short = tuple(sorted({*self.too_short, *short}))
        found: dict[bytes, bytes] = {}
        for name, value in pairs:
            if len(value) >= MIN_LENGTH:
                self._pairs[name, value] = None
                put = mark(name).encode("utf-8", "replace")
                for form in forms(value):
                    found.setdefault(form, put)
        self._take(found)

    def include(self, other: Redactor) -> None:
        """Look for all that another one looks for by now."""
        if other:
            self._pairs |= other._pairs
            self._take(dict(other._forms))

    def _take(self, more: Mapping[bytes, bytes]) -> None:
        found = {**more, **dict(self._forms)}
        self._forms = tuple(sorted(found.items(), key=lambda item: -len(item[0])))

    def __bool__(self) -> bool:
        """Tell whether there is anything to look for."""
        return bool(self._forms)

    @property
    def pairs(self) -> Sequence[tuple[str, str]]:
        """The names and values that are looked for, so that another one can ``learn`` them."""
        return tuple(self._pairs)

    @property
    def longest(self) -> int:
        """How many bytes the longest form has."""
        return len(self._forms[0][0]) if self._forms else 0

    @property
    def size(self) -> int:
        """How many bytes all forms have."""
        return sum(len(form) for form, _ in self._forms)

    def text(self, text: str) -> str:
        """Give a text without the values."""
        if not self._forms:
            return text
        return self.data(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def data(self, data: bytes) -> bytes:
        """Give bytes without the values."""
        spans = self.spans(data)
        return _without(data, spans, len(data)) if spans else data

    def value(self, value: Any) -> Any:
        """Give a JSON-able value without them: in strings, in keys, and as numbers."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            fields = cast("Mapping[Any, Any]", value)
            return {self.text(str(key)): self.value(item) for key, item in fields.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in cast("Sequence[Any]", value)]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            shown = repr(value)
            return value if self.text(shown) == shown else self.text(shown)
        return value

    def json_text(self, text: str) -> str:
        """Give a JSON text without them; it stays JSON."""
        if not self._forms:
            return text
        shown = self.value(json.loads(text))
        return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))

    def stream(self) -> Stream:
        """Begin a stream."""
        return Stream(self)

    def spans(self, data: bytes) -> list[Span]:
        """Find every value, also where they overlap; spans are in order and apart."""
        found: list[Span] = []
        for form, put in self._forms:
            at = data.find(form)
            while at >= 0:
                found.append((at, at + len(form), put))
                at = data.find(form, at + 1)
        return joined(found)

    def unfinished(self, data: bytes) -> int:
        """Give how many bytes at the end of ``data`` may be the beginning of a value."""
        longest = 0
        for form, _ in self._forms:
            first = form[:1]
            at = data.find(first, max(0, len(data) - len(form) + 1))
            while at >= 0 and len(data) - at > longest:
                if form.startswith(data[at:]):
                    longest = len(data) - at
                    break
                at = data.find(first, at + 1)
        return longest


class Stream:
    """One stream of bytes on its way out. What may be the beginning of a value is held back."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""
        self._covered = 0
        """How many of the held bytes belong to a value that was already replaced."""

    def feed(self, data: bytes) -> bytes:
        """Take a chunk; give what can be shown by now."""
        if not self._redactor:
            return data
        whole = self._held + data
        return self._give(whole, len(whole) - self._redactor.unfinished(whole))

    def flush(self) -> bytes:
        """Give what was held back: the stream is at its end."""
        return self._give(self._held, len(self._held))

    def gap(self) -> None:
        """Go on after bytes that nobody looked at: what follows may be the end of a value.

        So much as a value may reach into what follows is not shown.
        """
        self._held = b""
        self._covered = max(0, self._redactor.longest - 1)

    def _give(self, whole: bytes, cut: int) -> bytes:
        if not cut:
            self._held = whole
            return b""
        spans = self._redactor.spans(whole)
        if self._covered:
            # The mark of this one went out with the bytes before.
            spans = joined([(0, self._covered, b""), *spans])
        out = _without(whole, spans, cut)
        self._covered = max((end - cut for at, end, _ in spans if at < cut < end), default=0)
        self._held = whole[cut:]
        return out


def joined(spans: Iterable[Span]) -> list[Span]:
    """Give spans that overlap no other: those that do become one, with the first one's mark.

    Of several that begin at one place the one given first is the first.
    """
    out: list[Span] = []
    for at, end, put in sorted(spans, key=lambda span: span[0]):
        if out and at < out[-1][1]:
            before = out[-1]
            out[-1] = (before[0], max(before[1], end), before[2])
        else:
            out.append((at, end, put))
    return out


def _without(data: bytes, spans: Sequence[Span], cut: int) -> bytes:
    """Give ``data[:cut]`` with each span that begins in it replaced."""
    out: list[bytes] = []
    here = 0
    for at, end, put in spans:
        if at >= cut:
            break
        out += [data[here:at], put]
        here = end
    out.append(data[here:cut])
    return b"".join(out)


def forms(value: str) -> frozenset[bytes]:
    """Give the byte strings that show a value: as it is, escaped, and encoded."""
    raw = value.encode("utf-8", "surrogatepass")
    found = {raw, *_escaped(value), *_encoded(raw), *_wrapped(raw)}
    for written in _in_json(value) - {value}:
        found |= _encoded(written.encode("utf-8", "surrogatepass"))
    with suppress(UnicodeEncodeError):
        found.add(value.encode("latin-1"))
    stripped = value.strip()
    if stripped != value and len(stripped) >= MIN_LENGTH:
        found |= forms(stripped)
    if _HOST.fullmatch(value):
        # As part of a host's name, which is not told apart by its case.
        found.add(raw.lower())
    lines = value.splitlines()
    if len(lines) > 1:
        found |= {line.strip().encode("utf-8", "surrogatepass") for line in _long(lines)}
    return frozenset(form for form in found if len(form) >= MIN_LENGTH)


def _long(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if len(line.strip()) >= MIN_LINE]


def _escaped(value: str) -> set[bytes]:
    """Give the forms in JSON, JSON within JSON, HTML, Python's repr and URLs."""
    in_json = _in_json(value)
    texts = {
        *in_json,
        *(text for inner in in_json for text in _in_json(inner)),
        json.dumps(value).replace("/", "\\/")[1:-1],
        html.escape(value),
        html.escape(value, quote=False),
        repr(value)[1:-1],
        ascii(value)[1:-1],
        repr(value.encode("utf-8", "surrogatepass"))[2:-1],
    }
    found = {text.encode("utf-8", "surrogatepass") for text in texts}
    for safe in ("", "/", "/:@!$&'()*+,;=~"):
        for write in (quote, quote_plus):
            url = write(value, safe=safe, errors="surrogatepass").encode("ascii")
            found |= {url, _PERCENT.sub(lambda match: match.group().lower(), url)}
    return found


def _in_json(value: str) -> set[str]:
    """Give what stands between the quotes in JSON, with other letters than ASCII and without."""
    return {json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}


def _encoded(raw: bytes) -> set[bytes]:
    """Give the forms in hex and in base64, whatever stands before and after the value."""
    found = {raw.hex().encode(), raw.hex().upper().encode()}
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + raw)
        # Only the characters that the value alone decides.
        first, last = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
        inner = text[first:last]
        found |= {inner, inner.translate(_TO_URLSAFE)}
    return found


def _wrapped(raw: bytes) -> set[bytes]:
    """Give the forms of a long value in base64 on lines of the usual widths, from its start on."""
    text = base64.b64encode(raw)[: len(raw) * 8 // 6]
    found: set[bytes] = set()
    for width in _WIDTHS:
        if len(text) > width:
            lines = [text[at : at + width] for at in range(0, len(text), width)]
            found |= {end.join(lines) for end in _LINE_ENDS}
    return found


_WIDTHS = (64, 76)
"""Of PEM, and of MIME."""
_LINE_ENDS = (b"\n", b"\r\n", b"\\n", b"\\r\\n")
"""As they are, and as JSON and Python's repr write them."""

_TO_URLSAFE = bytes.maketrans(b"+/", b"-_")


class _Nothing(Redactor):
    """Hides nothing and learns nothing, since it is everybody's."""

    def learn(self, values: Values) -> None:
        """Forget them."""


NOTHING: Redactor = _Nothing({})
"""Hides nothing: for those that know no secret."""
