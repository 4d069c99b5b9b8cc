"""Pages that a reader follows are followed, command by command, against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_pages import ROOT, blocks_of, pages
from docs_play import Play

PLAYED = [page for page in pages() if any(b.language == "console" for b in blocks_of(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PLAYED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_page_works_and_prints_what_it_says(
    page: Path, tmp_path: Path
) -> None:
    play = Play(tmp_path)
    try:
        assert play.page(page) > 0
    finally:
        play.end()
