"""Edits of a TaskSet's text: an entry more, an entry less, another version of an entry.

Characters are put in and taken out by the places of nodes, so every comment, quote, indentation
and line ending of all else stays. The new text is read again: it holds what was wanted and nothing
else, or the edit is refused. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal, NoReturn, cast

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec import yaml12
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.documents import MAX_BYTES, TaskSetDoc, read_set
from dicode_mcp.spec.taskset.nodes import Node, compose
from dicode_mcp.spec.taskset.words import block, flow, scalar

_BOM = "\ufeff"
_BLANKS = " \t"
_STEP = 2
_COMMENT = re.compile(r"[ \t]*(?:#[^\r\n]*)?")
EMPTY = """\
apiVersion: dicode/v1
kind: TaskSet
spec:
  entries: {}
"""
"""A set without entries."""


def add_entry(text: str, file: str, key: str, entry: Mapping[str, Any]) -> str:
    """Put an entry behind the others.

    Raises ``SpecError`` when the text is no TaskSet, CONFLICT when it has the entry, and
    NOT_SUPPORTED when it is written in a way that cannot be edited.
    """
    if key in {known.key for known in _read(text, file).entries}:
        raise DicodeError(
            Code.CONFLICT, f"{file} has an entry '{key}' already", hint="choose another key"
        )

    def wanted(data: dict[str, Any]) -> None:
        _child(_child(data, "spec"), "entries")[key] = deepcopy(dict(entry))

    return _edited(text, file, lambda body: _with_entry(body, key, entry), wanted)


def remove_entry(text: str, file: str, key: str) -> tuple[str, str]:
    """Take an entry out; gives the new text and what was taken. Raises like ``add_entry``."""
    if key not in {known.key for known in _read(text, file).entries}:
        raise DicodeError(Code.NOT_FOUND, f"{file} has no entry '{key}'")
    taken: list[str] = []

    def cut(body: str) -> str:
        after, removed = _without_entry(body, key)
        taken.append(removed)
        return after

    def wanted(data: dict[str, Any]) -> None:
        del data["spec"]["entries"][key]

    return _edited(text, file, cut, wanted), taken[0]


def set_version(text: str, file: str, key: str, kind: Literal["tag", "commit"], value: str) -> str:
    """Let an entry whose ref names a tag or a commit name another. Raises like ``add_entry``."""
    _read(text, file)

    def put(body: str) -> str:
        ref = _at(compose(body), "spec", "entries", key, "ref")
        for old in ("tag", "commit"):
            name, node = (ref.key(old), ref.get(old)) if ref else (None, None)
            if name is not None and node is not None and not node.nothing:
                body = body[: node.start] + scalar(value) + body[node.end :]
                return body[: name.start] + kind + body[name.end :]
        raise _refusal(file)

    def wanted(data: dict[str, Any]) -> None:
        ref = cast("dict[str, Any]", data["spec"]["entries"][key]["ref"])
        kept = {name: item for name, item in ref.items() if name not in ("tag", "commit")}
        data["spec"]["entries"][key]["ref"] = {**kept, kind: value}

    return _edited(text, file, put, wanted)


def _read(text: str, file: str) -> TaskSetDoc:
    return read_set(text, file)


def _edited(
    text: str, file: str, edit: Callable[[str], str], wanted: Callable[[dict[str, Any]], None]
) -> str:
    """Edit a text and prove that it then holds what is wanted."""
    mark, body = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    before = yaml12.load(body, file, max_bytes=MAX_BYTES).data
    expected = deepcopy(before)
    wanted(expected)
    try:
        after = edit(body)
        read_set(after, file)
        found = yaml12.load(after, file, max_bytes=MAX_BYTES).data
    except SpecError:
        raise _refusal(file) from None
    if _taken_apart(found) != _taken_apart(expected) or not _same_order(before, found):
        raise _refusal(file)
    return mark + after


def _refusal(file: str) -> DicodeError:
    return DicodeError(
        Code.NOT_SUPPORTED,
        f"{file} is written in a way that cannot be edited without touching other lines",
        hint="write spec.entries as a plain block, one key on each line, or edit the file by hand",
    )


def _cannot() -> NoReturn:
    raise SpecError(())


def _taken_apart(data: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Give a set, its spec and its entries; what holds nothing counts like what is not there."""
    root = dict(cast("Mapping[str, Any]", data))
    spec = dict(cast("Mapping[str, Any]", root.pop("spec", None) or {}))
    entries = dict(cast("Mapping[str, Any]", spec.pop("entries", None) or {}))
    return root, spec, entries


def _same_order(before: Any, after: Any) -> bool:
    old, new = list(_taken_apart(before)[2]), list(_taken_apart(after)[2])
    return [key for key in old if key in new] == [key for key in new if key in old]


def _child(data: dict[str, Any], key: str) -> dict[str, Any]:
    if data.get(key) is None:
        data[key] = {}
    return cast("dict[str, Any]", data[key])


def _at(node: Node | None, *path: str) -> Node | None:
    for key in path:
        node = node.get(key) if node is not None and node.kind == "map" else None
    return node


# ── Putting in ──


def _with_entry(body: str, key: str, entry: Mapping[str, Any]) -> str:
    """Put the entry at the innermost place around it that there is."""
    root = compose(body)
    if root is None or root.kind != "map":
        _cannot()
    around, value, rest = root, {"spec": {"entries": {key: entry}}}, ("spec", "entries")
    while rest:
        name, *deeper = rest
        node = around.get(name)
        value = cast("dict[str, Any]", value[name])
        if node is None:
            return _with_item(body, around, name, value)
        if node.kind != "map" or not (node.items or node.flow):
            return _in_place_of_nothing(body, around, name, node, value)
        if node.flow and not node.items and not around.flow and _is_empty(body, node):
            return _in_place_of_nothing(body, around, name, node, value)
        around, rest = node, tuple(deeper)
    return _with_item(body, around, key, entry)


def _is_empty(body: str, node: Node) -> bool:
    return not body[node.start + 1 : node.end - 1].strip(" \t\r\n")


def _with_item(body: str, node: Node, key: str, value: Any) -> str:
    """Put an item into a map that has others, or whose text is a flow."""
    if node.flow:
        start = body.index("{", node.start) + 1
        comma = ", " if node.items else ""
        return body[:start] + f"{scalar(key)}: {flow(value)}{comma}" + body[start:]
    if not node.keys:
        _cannot()
    column = node.keys[0].column if body[node.start] in "&!" else node.column
    lines = block({key: value}, column, _step_of(node, column))
    return _with_lines(body, _line_after(body, node, column), lines)


def _in_place_of_nothing(
    body: str, around: Node, name: str, node: Node, value: Mapping[str, Any]
) -> str:
    """Write a map where ``null``, ``{}`` or nothing stands."""
    if node.kind == "alias" or (node.kind == "scalar" and node.text not in ("", "~", "null")):
        _cannot()
    if around.flow:
        colon = "" if not node.nothing else " "
        return body[: node.start] + colon + flow(value) + body[node.end :]
    before, after = body[: node.start], body[node.end :]
    if not node.nothing and not after.startswith((" ", "\t")):
        before = before.rstrip(_BLANKS)
    key = around.key(name)
    assert key is not None
    lines = block(value, key.column + _STEP, _STEP)
    rest = _COMMENT.match(after)
    assert rest is not None
    at = len(before) + rest.end()
    joined = before + after
    if joined[at : at + 1] not in ("", "\r", "\n"):
        _cannot()
    return _with_lines(joined, _next_line(joined, at), lines)


def _with_lines(body: str, at: int, lines: list[str]) -> str:
    end = "\r\n" if re.search(r"\r?\n", body + "\n").group() == "\r\n" else "\n"  # pyright: ignore[reportOptionalMemberAccess]
    put = end.join(lines)
    if at and body[at - 1] != "\n":
        return body[:at] + end + put + body[at:]
    return body[:at] + put + end + body[at:]


def _step_of(node: Node, column: int) -> int:
    """Give by how much what is inside an item of a map is indented."""
    steps = [
        inner.keys[0].column - column
        for inner in node.items
        if inner.kind == "map" and not inner.flow and inner.keys
    ]
    return steps[-1] if steps and 0 < steps[-1] <= 8 else _STEP


def _next_line(body: str, at: int) -> int:
    found = body.find("\n", at)
    return len(body) if found < 0 else found + 1


def _line_after(body: str, node: Node, column: int) -> int:
    """Give where the line after a block begins, and after the comments that are inside it."""
    last = node.last
    at = last.end if last.block_text else _next_line(body, last.end)
    while at < len(body):
        end = _next_line(body, at)
        line = body[at:end]
        inner = len(line) - len(line.lstrip(" "))
        if not line.lstrip(_BLANKS).startswith("#") or inner <= column:
            return at
        at = end
    return at


# ── Taking out ──


def _without_entry(body: str, key: str) -> tuple[str, str]:
    entries = _at(compose(body), "spec", "entries")
    if entries is None:
        _cannot()
    if entries.flow:
        return _without_flow_item(body, entries, key)
    index = [name.text for name in entries.keys].index(key)
    name, value = entries.keys[index], entries.items[index]
    column = entries.keys[0].column if body[entries.start] in "&!" else entries.column
    start = body.rfind("\n", 0, name.start) + 1
    if body[start : name.start].strip(" ?"):
        _cannot()
    only = Node(name.start, value.end, column, kind="map", keys=[name], items=[value])
    end = _line_after(body, only, column)
    removed = body[start:end]
    rest = body[:start] + body[end:]
    if len(entries.keys) > 1:
        return rest, removed
    around = _at(compose(body), "spec")
    above = around.key("entries") if around is not None else None
    if above is None:
        _cannot()
    colon = body.index(":", above.end) + 1
    return rest[:colon] + " {}" + rest[colon:], removed


def _without_flow_item(body: str, entries: Node, key: str) -> tuple[str, str]:
    index = [name.text for name in entries.keys].index(key)
    name, value = entries.keys[index], entries.items[index]
    start, end = name.start, max(value.end, name.end)
    removed = body[start:end]
    if index + 1 < len(entries.keys):
        following = entries.keys[index + 1].start
        comma = _comma(body, end, following)
        gap = re.match(r"[ \t]*", body[comma + 1 :])
        assert gap is not None
        return body[:start] + body[comma + 1 + gap.end() :], removed
    if index:
        before = entries.items[index - 1].end or entries.keys[index - 1].end
        comma = _comma(body, max(before, entries.keys[index - 1].end), start)
        return body[:comma] + body[end:], removed
    after = body[end : entries.end]
    rest = re.match(r"[ \t]*,?", after)
    assert rest is not None
    return body[:start] + body[end + rest.end() :], removed


def _comma(body: str, start: int, end: int) -> int:
    """Find the comma between two items, which no comment holds."""
    at = start
    while at < end:
        if body[at] == "#" and body[at - 1] in " \t\r\n":
            at = _next_line(body, at)
            continue
        if body[at] == ",":
            return at
        at += 1
    _cannot()
