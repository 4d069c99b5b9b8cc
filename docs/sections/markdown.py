"""Markdown as text: tables, anchors, and the splicing of generated parts between markers. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Section = Callable[[], str]

_BEGIN = re.compile(r"<!-- generated: ([a-z-]+) -->\n")
END = "<!-- end of the generated part -->\n"


def splice(text: str, sections: Mapping[str, Section]) -> str:
    """Give ``text`` with the part between each pair of markers made anew.

    Raises ``ValueError`` for a part nobody makes and for a marker without its end.
    """
    out: list[str] = []
    rest = text
    while (found := _BEGIN.search(rest)) is not None:
        name = found.group(1)
        head, tail = rest[: found.end()], rest[found.end() :]
        if name not in sections:
            raise ValueError(
                f"no part is called {name!r}; there are: {', '.join(sorted(sections))}"
            )
        if END not in tail:
            raise ValueError(f"the part {name!r} has no end marker: {END.strip()}")
        out += [head, "\n", sections[name]().strip("\n"), "\n\n", END]
        rest = tail.partition(END)[2]
    return "".join([*out, rest])


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table; cells may hold Markdown, a ``|`` in one is escaped."""
    lines = [_row(headers), _row(["---"] * len(headers)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def code(text: str) -> str:
    """Set a text as code."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def plain(text: str) -> str:
    """Turn a docstring's double backquotes into Markdown's single ones, on one line."""
    return " ".join(text.split()).replace("``", "`")


def anchor(heading: str) -> str:
    """Give the anchor that a heading gets: lower case, no punctuation, spaces as hyphens."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower().replace("`", ""))
    return kept.strip().replace(" ", "-")


def sentence(text: str) -> str:
    """End a text with a full stop."""
    return text if not text or text.endswith((".", "…", "!")) else text + "."
