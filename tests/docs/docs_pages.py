"""The documentation as data: its pages, their blocks, their links."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.M | re.S
)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.M)
_SEPARATORS = ";&|<>()\n"
_INLINE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(
    r"^(?:#|//|<!--) (?P<path>(?:~/|/|\./)?[\w./~-]+\.(?:ya?ml|py|ts|js|html))(?: -->)?$"
)


class Block(NamedTuple):
    """A fenced block: where it begins, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file the block shows, named by a comment in its first line."""
        found = _FILE.match(self.text.partition("\n")[0])
        return found.group("path") if found else None


@cache
def pages() -> tuple[Path, ...]:
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return (*top, *sorted((ROOT / "docs").rglob("*.md")))


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page, text.count("\n", 0, m.start()) + 1, m["language"], _dedent(m["text"], m["indent"])
        )
        for m in _FENCE.finditer(text)
    ]


def _dedent(text: str, indent: str) -> str:
    return "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))


def blocks(*languages: str) -> list[Block]:
    return [b for page in pages() for b in blocks_of(page) if b.language in languages]


def prose(page: Path) -> str:
    """Give a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    return [m["target"] for m in _LINK.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, made as the usual renderers make them."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(page)):
        kept = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        number = 0
        while (name := f"{kept}-{number}" if number else kept) in found:
            number += 1
        found.add(name)
    return found


def inline_code(page: Path) -> list[str]:
    return _INLINE.findall(prose(page))


class Step(NamedTuple):
    """A command of a console block, and what the page says it prints."""

    command: str
    expected: tuple[str, ...]


def steps(block: Block) -> list[Step]:
    found: list[Step] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], ()))
        elif line.startswith("> ") and found and not found[-1].expected:
            found[-1] = Step(f"{found[-1].command}\n{line[2:]}", ())
        elif found and line.strip():
            found[-1] = found[-1]._replace(expected=(*found[-1].expected, line))
    return found


def shell_text(block: Block) -> str:
    """Give the commands of a ``console`` or ``sh`` block, without comments."""
    if block.language == "console":
        return "\n".join(step.command for step in steps(block))
    return re.sub(r"(?m)(?:^|\s)#.*$", "", block.text.replace("\\\n", " "))


def dicode_commands(block: Block) -> Iterator[list[str]]:
    """Give the arguments of each ``dicode …`` in a block."""
    lexer = shlex.shlex(shell_text(block), posix=True, punctuation_chars=_SEPARATORS)
    lexer.whitespace_split = True
    lexer.whitespace = " \t"
    lexer.commenters = ""
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(_SEPARATORS):
            if words and words[0].rpartition("/")[2] == "dicode":
                yield words[1:]
            words = []
        else:
            words.append(word)


def tracked_files() -> list[Path]:
    """Give the files of the repository; without git all that is not ignored by name."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        names = done.stdout.decode().split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        skipped = {".venv", ".git", "__pycache__", "dist", "build"}
        return [
            path
            for path in ROOT.rglob("*")
            if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)
        ]
