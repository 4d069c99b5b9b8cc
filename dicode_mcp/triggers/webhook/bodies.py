"""What a request's body means to a task: JSON, a map, a text, or bytes with their type. Pure.

A body is all there already, within its limit, and believed; here it is only read.
"""

from __future__ import annotations

import codecs
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from dicode_mcp.triggers.webhook.parts import MAX_FIELDS, PartsError, read_parts

UNKNOWN = "application/octet-stream"
_FORM = "application/x-www-form-urlencoded"
_PARTS = "multipart/form-data"
_MAX_TYPE = 256
_CHARSETS = frozenset(
    "utf-8 utf-8-sig utf-16 utf-16-le utf-16-be utf-32 ascii koi8-r koi8-u shift_jis euc_jp euc_kr"
    " gb2312 gbk gb18030 big5".split()
)
_CHARSET_FAMILIES = ("iso8859-", "cp125")
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


class Unreadable(Exception):
    """A body that is not what it says it is; ``why`` is a sentence without any value of it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Unsupported(Exception):
    """A body whose type or encoding is not read here, or cannot be told."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class ContentType:
    """A media type in lower case, and the parameters that matter; the type is empty when unsaid."""

    type: str = ""
    charset: str = "utf-8"
    boundary: str = ""

    @property
    def is_json(self) -> bool:
        """Whether a body of this type is JSON."""
        return self.type in ("application/json", "text/json") or self.type.endswith("+json")


def content_type(headers: Sequence[tuple[str, str]]) -> ContentType:
    """Read what a body is said to be. Raises ``Unsupported``; names are lower-case."""
    encodings = [value for name, value in headers if name == "content-encoding"]
    if any(value.strip().lower() not in ("", "identity") for value in encodings):
        raise Unsupported("a body with a Content-Encoding is not taken; send it as it is")
    types = [value for name, value in headers if name == "content-type"]
    if len(types) > 1:
        raise Unsupported("Content-Type was sent more than once")
    return _parsed(types[0]) if types and types[0].strip() else ContentType()


def read_body(kind: ContentType, body: bytes) -> Any:
    """Give the input that a body is; an empty one is None.

    Raises ``Unreadable`` when it is malformed.
    """
    if not body:
        return None
    if kind.is_json:
        return _json(_text(kind, body))
    if kind.type == _FORM:
        return _form(body)
    if kind.type == _PARTS:
        return _parts(kind, body)
    if kind.type.startswith("text/"):
        return _text(kind, body)
    return {"content_type": kind.type or UNKNOWN, "base64": b64encode(body).decode()}


def as_map(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Give pairs as a map; a name that comes more than once has a list."""
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _parsed(header: str) -> ContentType:
    media, _, rest = header.partition(";")
    kind = media.strip().lower()
    main, slash, sub = kind.partition("/")
    if len(header) > _MAX_TYPE or not slash or not _is_token(main) or not _is_token(sub):
        raise Unsupported("Content-Type is not a media type such as application/json")
    options = _options(rest)
    charset = options.get("charset", "utf-8").lower()
    if kind.startswith("text/") or ContentType(kind).is_json:
        _require_charset(charset)
    return ContentType(kind, charset, options.get("boundary", ""))


def _options(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(";"):
        name, _, value = part.partition("=")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        found.setdefault(name.strip().lower(), value)
    return found


def _is_token(text: str) -> bool:
    return bool(text) and _TOKEN.issuperset(text)


def _require_charset(name: str) -> None:
    try:
        known = codecs.lookup(name).name
    except (LookupError, ValueError):
        known = ""
    # An allow-list: Python has codecs that are no character set, or slow on purpose-made bytes.
    if known not in _CHARSETS and not known.startswith(_CHARSET_FAMILIES):
        raise Unsupported("the charset of Content-Type is not known; send UTF-8")


def _text(kind: ContentType, body: bytes) -> str:
    try:
        return body.decode(kind.charset)
    except (UnicodeError, ValueError):
        raise Unreadable(f"the body is not text in the charset {kind.charset}") from None


def _json(text: str) -> Any:
    try:
        value = json.loads(text.removeprefix("\ufeff"), parse_constant=_no_constant)
        # Half a surrogate pair is well-formed as \ud800 and is no character at all.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise Unreadable("the body's JSON holds half a surrogate pair") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise Unreadable(f"the body is not JSON: the fault is at {where}") from None
    except RecursionError:
        raise Unreadable("the body's JSON is nested too deeply") from None
    except ValueError:
        raise Unreadable("the body is not JSON: NaN, an infinity or an endless number") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _form(body: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except UnicodeError:
        raise Unreadable("the form is not percent-encoded UTF-8") from None
    except ValueError:
        raise Unreadable(f"the form has more than {MAX_FIELDS} fields") from None
    return as_map(pairs)


def _parts(kind: ContentType, body: bytes) -> dict[str, Any]:
    try:
        return as_map(read_parts(kind.boundary, body))
    except PartsError as error:
        raise Unreadable(error.why) from None


def read_query(text: str) -> Mapping[str, Any]:
    """Give a query as a map. Raises ``Unreadable``."""
    try:
        return as_map(
            parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
        )
    except ValueError:
        raise Unreadable(
            f"the query is not percent-encoded UTF-8, or has more than {MAX_FIELDS} fields"
        ) from None
