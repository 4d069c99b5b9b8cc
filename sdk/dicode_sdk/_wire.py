"""JSON for the talk with the server, without importing ``json`` (which costs more than a task).

The same C code that ``json`` uses, reached directly; without it, ``json`` itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class NotJson(ValueError):
    """A value has no JSON form. ``path`` says where in it, like ``$.items[3].when``."""

    def __init__(self, path: str, message: str, hint: str | None = None) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message
        self.hint = hint


_DEPTH = 200
_HINTS = {
    "datetime": "value.isoformat()",
    "date": "value.isoformat()",
    "time": "value.isoformat()",
    "timedelta": "value.total_seconds()",
    "Decimal": "str(value) or float(value)",
    "UUID": "str(value)",
    "PosixPath": "str(value)",
    "set": "sorted(value)",
    "frozenset": "sorted(value)",
    "bytes": "value.decode() or base64.b64encode(value).decode()",
    "bytearray": "value.decode() or base64.b64encode(value).decode()",
    "coroutine": "await the call",
    "generator": "list(value)",
    "dict_keys": "list(value)",
    "dict_values": "list(value)",
    "DataFrame": 'value.to_dict("records")',
    "Series": "value.to_list()",
    "ndarray": "value.tolist()",
}


def plain(value: Any, path: str = "$", depth: int = 0) -> Any:
    """Give ``value`` as dicts, lists and scalars (tuples become lists).

    Raises ``NotJson`` for anything else: nothing is turned into text silently.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _number(float(value), path)
    if depth >= _DEPTH:
        raise NotJson(path, f"nested deeper than {_DEPTH} levels, or contains itself")
    if isinstance(value, dict):
        return {
            _key(key, path): plain(item, f"{path}.{key}", depth + 1)
            for key, item in value.items()  # pyright: ignore[reportUnknownVariableType]
        }
    if isinstance(value, (list, tuple)):
        return [
            plain(item, f"{path}[{index}]", depth + 1)
            for index, item in enumerate(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        ]
    raise _foreign(value, path)


def _text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NotJson(
                path,
                "text with half a surrogate pair is not Unicode",
                'value.encode("utf-8", "replace").decode()',
            ) from None
    return str(value)


def _number(value: float, path: str) -> float:
    if value != value or value in (float("inf"), float("-inf")):
        raise NotJson(path, f"{value} has no JSON form", "None, or a number")
    return value


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise NotJson(
            path, f"a key is {type(key).__name__} ({key!r:.60}), and JSON keys are text", "str(key)"
        )
    return _text(key, path)


def _foreign(value: Any, path: str) -> NotJson:
    kind: type[Any] = value.__class__
    hint = _HINTS.get(kind.__name__)
    if hint is None and hasattr(kind, "__dataclass_fields__"):
        hint = "dataclasses.asdict(value)"
    elif hint is None and hasattr(kind, "model_dump"):
        hint = 'value.model_dump(mode="json")'
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return NotJson(path, f"{name} has no JSON form", hint)


def _no_default(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _make() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    try:
        from _json import (  # type: ignore[import-not-found]
            encode_basestring,  # pyright: ignore
            make_encoder,  # pyright: ignore
            make_scanner,  # pyright: ignore
        )
    except ImportError:
        return _make_slow()
    encoder: Any = make_encoder(
        None, _no_default, encode_basestring, None, ":", ",", False, False, False
    )

    class Context:
        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float
        memo: dict[str, str] = {}  # noqa: RUF012

    context: Any = Context()
    scan: Any = make_scanner(context)

    def encode(value: Any) -> str:
        return "".join(encoder(value, 0))

    def decode(text: str) -> Any:
        return scan(text, 0)[0]

    return encode, decode


def _make_slow() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    import json

    def encode(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    return encode, json.loads


encode, decode = _make()
