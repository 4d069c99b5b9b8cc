"""Links within the documentation lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_pages import ROOT, anchors, links, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_and_anchor_leads_somewhere(page: Path) -> None:
    wrong: list[str] = []
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_relative_to(ROOT) or not target.exists():
            wrong.append(f"{link}: there is no such file")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: {target.name} has no such heading")
    assert not wrong, "\n".join(wrong)


def test_every_page_is_reached_from_the_index() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "docs/index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [
            (page.parent / link.partition("#")[0]).resolve()
            for link in links(page)
            if "://" not in link and not link.startswith("#")
        ]
    assert not set((ROOT / "docs").rglob("*.md")) - seen


def test_a_heading_is_given_the_anchor_that_links_use(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# task.yaml\n\n## `permissions.env[]`\n\n## Two words\n\n## Two words\n")
    assert anchors(page) == {"taskyaml", "permissionsenv", "two-words", "two-words-1"}
