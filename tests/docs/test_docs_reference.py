"""The generated parts of the documentation are those that the code would make now."""

from __future__ import annotations

import subprocess
import sys

from docs_pages import ROOT


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nTo write them: make docs"


def test_a_changed_part_is_noticed_and_made_anew() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from sections.markdown import END, splice
    finally:
        sys.path.remove(str(ROOT / "docs"))
    page = f"# Page\n\n<!-- generated: part -->\nold\n{END}\nby hand\n"
    made = splice(page, {"part": lambda: "new"})
    assert made == f"# Page\n\n<!-- generated: part -->\n\nnew\n\n{END}\nby hand\n"
    assert splice(made, {"part": lambda: "new"}) == made
