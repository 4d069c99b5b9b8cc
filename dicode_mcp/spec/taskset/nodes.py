"""A YAML text as nodes that know which characters they are made of.

For edits that leave every other character as it was. Values are of no interest here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)


@dataclass(slots=True)
class Node:
    """One node: the offsets of its first character and after its last one.

    ``column`` is that of its first character, of a block map that of its keys. ``keys`` has the
    keys of a map, ``items`` its values, or what a list holds. ``block_text``: a ``|`` or ``>``
    scalar, which ends where the next line begins.
    """

    start: int
    end: int
    column: int
    text: str | None = None
    kind: str = "scalar"
    flow: bool = False
    block_text: bool = False
    keys: list[Node] = field(default_factory=list["Node"])
    items: list[Node] = field(default_factory=list["Node"])

    def pairs(self) -> Iterator[tuple[Node, Node]]:
        """Give keys with their values."""
        return zip(self.keys, self.items, strict=True)

    def get(self, key: str) -> Node | None:
        """Give the value of a key."""
        return next((value for name, value in self.pairs() if name.text == key), None)

    def key(self, key: str) -> Node | None:
        """Give a key's own node."""
        return next((name for name in self.keys if name.text == key), None)

    @property
    def nothing(self) -> bool:
        """Tell whether not a character stands where a value would."""
        return self.kind == "scalar" and self.start == self.end

    @property
    def last(self) -> Node:
        """Give the node that ends last in this one; itself unless it is a block of others."""
        node = self
        while node.kind in ("map", "list") and not node.flow and node.items:
            inner = node.items[-1]
            # 'key:' with nothing behind it
            node = inner if inner.end > inner.start or not node.keys else _later(node, inner)
        return node


def _later(node: Node, value: Node) -> Node:
    key = node.keys[-1]
    return key if key.end > value.end else value


def compose(text: str) -> Node | None:
    """Read a text that has been read before without a fault; None when it holds nothing.

    ``text`` must not begin with a byte order mark.
    """
    root: Node | None = None
    stack: list[Node] = []
    parser: Any = yaml.CSafeLoader(text)
    for event in iter(parser.get_event, None):
        if isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            node = stack.pop()
            node.end = event.end_mark.index if node.flow else node.last.end
            continue
        if not isinstance(event, NodeEvent):
            continue
        node = _node(event)
        if not stack:
            root = node
        elif stack[-1].kind == "map" and len(stack[-1].keys) == len(stack[-1].items):
            stack[-1].keys.append(node)
        else:
            stack[-1].items.append(node)
        if isinstance(event, CollectionStartEvent):
            stack.append(node)
    return root


def _node(event: Event) -> Node:
    mark, end = event.start_mark, event.end_mark.index
    if isinstance(event, ScalarEvent):
        style: str | None = event.style
        return Node(
            mark.index, end, mark.column, event.value, block_text=bool(style) and style in "|>"
        )
    if isinstance(event, AliasEvent):
        return Node(mark.index, end, mark.column, kind="alias")
    if isinstance(event, MappingStartEvent):
        return Node(mark.index, end, mark.column, kind="map", flow=bool(event.flow_style))
    assert isinstance(event, SequenceStartEvent)
    return Node(mark.index, end, mark.column, kind="list", flow=bool(event.flow_style))
