"""A script's own list of dependencies: the block ``# /// script`` of PEP 723. Pure."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from typing import Any, cast

_BLOCK = re.compile(
    r"^# /// script[ \t]*\r?\n(?P<content>(?:^#(?:| [^\r\n]*)\r?(?:\n|\Z))*?)^# ///[ \t]*\r?$",
    re.MULTILINE,
)
_OPENING = re.compile(r"^# /// script[ \t]*\r?$", re.MULTILINE)
_KEYS = ("dependencies", "requires-python", "tool")


class BlockError(ValueError):
    """A block that cannot be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Block:
    """The block of a script. ``line`` is where it opens; ``text`` is its TOML."""

    line: int
    text: str
    dependencies: tuple[str, ...]
    requires_python: str | None

    @property
    def digest(self) -> str:
        """Name the block by what it says."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:24]

    @property
    def script(self) -> str:
        """Write a script that has this block and nothing else."""
        lines = (f"# {line}".rstrip() for line in self.text.splitlines())
        return "\n".join(["# /// script", *lines, "# ///", ""])


def read_block(source: bytes) -> Block | None:
    """Find the block of a script. Raises ``BlockError`` for one that cannot be read."""
    text = source.decode("utf-8", "replace").removeprefix("\ufeff")
    openings = list(_OPENING.finditer(text))
    if not openings:
        return None
    line = text.count("\n", 0, openings[0].start()) + 1
    found = list(_BLOCK.finditer(text))
    if len(found) > 1:
        second = text.count("\n", 0, found[1].start()) + 1
        raise BlockError(f"{second}: a second `# /// script` block; one script has one")
    if not found:
        raise BlockError(
            f"{line}: the `# /// script` block does not end; every line of it begins with `# `, "
            "and the last is `# ///`"
        )
    content = "\n".join(
        each.rstrip("\r").removeprefix("#").removeprefix(" ")
        for each in found[0]["content"].splitlines()
    )
    return _checked(line, content)


def _checked(line: int, content: str) -> Block:
    try:
        parsed = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise BlockError(f"{line}: the `# /// script` block is not TOML: {error}") from None
    unknown = sorted(set(parsed) - set(_KEYS))
    if unknown:
        raise BlockError(
            f"{line}: the `# /// script` block has {unknown[0]!r}; it may have " + ", ".join(_KEYS)
        )
    wanted: Any = parsed.get("dependencies", [])
    if not isinstance(wanted, list) or not all(
        isinstance(each, str) for each in cast("list[Any]", wanted)
    ):
        raise BlockError(f'{line}: dependencies is a list of texts, as in ["httpx>=0.28"]')
    python: Any = parsed.get("requires-python")
    if python is not None and not isinstance(python, str):
        raise BlockError(f'{line}: requires-python is a text, as in ">=3.11"')
    return Block(line, content, tuple(cast("list[str]", wanted)), python)
