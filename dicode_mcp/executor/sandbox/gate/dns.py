"""A stub of a name server: it answers from what it is told, and asks nobody. Pure.

Packets come from the task, so from anyone. Nothing in them is used but a name of plain letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import pack, unpack_from

A, AAAA = 1, 28
_IN, _ANY_CLASS = 1, 255
_NO_ERROR, _FORMAT_ERROR, _NO_SUCH_NAME, _NOT_IMPLEMENTED = 0, 1, 3, 4
_RESPONSE, _AUTHORITATIVE, _RECURSION_WANTED, _RECURSION = 0x8000, 0x0400, 0x0100, 0x0080
_OPCODE = 0x7800
_HEADER = 12
_MOST = 1232
"""Bytes of a question; what is longer is not one."""
_TTL_S = 60
_NAME_POINTER = 0xC000 | _HEADER
_LABEL = re.compile(rb"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_LONGEST_NAME = 253


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``name`` is in small letters without a last dot, empty when it is no host."""

    id: int
    flags: int
    name: str
    kind: int
    raw: bytes


Addresses = tuple[IPv4Address | None, IPv6Address | None]
Lookup = Callable[[str, int], Addresses | None]
"""Gives the addresses of a name, None for a name that is not there. Takes the kind asked for."""


def answer(packet: bytes, lookup: Lookup) -> bytes | None:
    """Answer a packet; None where no answer is due."""
    if len(packet) < _HEADER or len(packet) > _MOST:
        return None
    asked, flags, questions = unpack_from("!HHH", packet)
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE:
        return _reply(asked, flags, _NOT_IMPLEMENTED)
    question = _read(packet, asked, flags) if questions == 1 else None
    if question is None:
        return _reply(asked, flags, _FORMAT_ERROR)
    return _answer(question, lookup)


def _read(packet: bytes, asked: int, flags: int) -> Question | None:
    labels: list[bytes] = []
    at = _HEADER
    while at < len(packet) and packet[at]:
        length = packet[at]
        if length > 63 or at + 1 + length >= len(packet) or at > _HEADER + 255:
            return None
        labels.append(packet[at + 1 : at + 1 + length])
        at += 1 + length
    if at + 5 > len(packet) or at - _HEADER > 254:
        return None
    kind, space = unpack_from("!HH", packet, at + 1)
    known = space in (_IN, _ANY_CLASS)
    name = _name(labels) if known else ""
    return Question(asked, flags, name, kind, packet[_HEADER : at + 5])


def _name(labels: list[bytes]) -> str:
    if not all(_LABEL.fullmatch(label) for label in labels):
        return ""
    name = b".".join(labels).decode("ascii").lower()
    return name if len(name) <= _LONGEST_NAME else ""


def is_name(text: str) -> bool:
    """Tell whether a text is a host's name, as one may be asked for."""
    labels = text.encode("latin-1", "replace").split(b".")
    return len(text) <= _LONGEST_NAME and all(_LABEL.fullmatch(label) for label in labels)


def _answer(question: Question, lookup: Lookup) -> bytes:
    found = lookup(question.name, question.kind) if question.name else None
    if found is None:
        return _reply(question.id, question.flags, _NO_SUCH_NAME, question.raw)
    four, six = found
    address = four if question.kind == A else six if question.kind == AAAA else None
    if address is None:
        return _reply(question.id, question.flags, _NO_ERROR, question.raw)
    data = address.packed
    record = pack("!HHHIH", _NAME_POINTER, question.kind, _IN, _TTL_S, len(data)) + data
    return _reply(question.id, question.flags, _NO_ERROR, question.raw, record)


def _reply(asked: int, flags: int, code: int, question: bytes = b"", record: bytes = b"") -> bytes:
    told = _RESPONSE | _AUTHORITATIVE | _RECURSION | (flags & _RECURSION_WANTED) | code
    counts = (1 if question else 0, 1 if record else 0, 0, 0)
    return pack("!HHHHHH", asked, told, *counts) + question + record
