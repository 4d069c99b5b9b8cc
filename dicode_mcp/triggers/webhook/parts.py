"""The parts of a ``multipart/form-data`` body: fields are texts, files are maps. Pure."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELDS = 1000


class PartsError(Exception):
    """A body that is not made of parts as it should be; ``why`` is a sentence."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def read_parts(boundary: str, body: bytes) -> list[tuple[str, Any]]:
    """Give name and value of each part: a text, or ``{filename, content_type, base64}``.

    Raises ``PartsError``.
    """
    if not boundary or len(boundary) > 70:
        raise PartsError("multipart/form-data needs a boundary of 1 to 70 characters")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary.encode("latin-1", "replace"), collector.callbacks())
        parser.write(body)
        parser.finalize()
    except MultipartParseError:
        raise PartsError("the multipart body is malformed") from None
    if not collector.ended:
        raise PartsError("the multipart body ends before its last boundary")
    return collector.found


class _Collector:
    """Takes what the parser meets."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Any]] = []
        self.ended = False
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._header,
            "on_header_end": self._header_end,
            "on_part_data": self._part,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        if len(self.found) >= MAX_FIELDS:
            raise PartsError(f"the form has more than {MAX_FIELDS} fields")
        self._headers, self._data = {}, []

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers.setdefault(self._name.lower(), self._value)
        self._name = self._value = b""

    def _part(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if not options.get(b"name"):
            raise PartsError("a part of the form has no name")
        body = b"".join(self._data)
        name = _text(options[b"name"], "a part's name")
        if b"filename" not in options:
            self.found.append((name, _text(body, "a field of the form")))
            return
        kind, _ = parse_options_header(self._headers.get(b"content-type"))
        file = {
            "filename": _text(options[b"filename"], "a file's name"),
            "content_type": kind.decode("latin-1") or "application/octet-stream",
            "base64": b64encode(body).decode(),
        }
        self.found.append((name, file))

    def _all(self) -> None:
        self.ended = True


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeError:
        raise PartsError(f"{what} is not UTF-8") from None
