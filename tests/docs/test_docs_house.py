"""What holds for the repository's texts as a whole."""

from __future__ import annotations

import re
import tomllib

from docs_pages import ROOT, blocks_of, tracked_files

# Written in pieces: this file is searched too.
_REGISTRIES = (
    "py" + "pi.org",
    "pythonhosted" + ".org",
    "npm" + "js.org",
    "npm" + "js.com",
    "deb." + "debian.org",
    "security." + "debian.org",
    "archive." + "ubuntu.com",
    "crates" + ".io",
    "proxy." + "golang.org",
)
_OWN_PATHS = re.compile(
    "|".join(
        (
            r"(?<!\.)/(?:home|Users)/(?!(?:you|user)\b)[a-z][\w.-]*/",
            r"(?<![\w.$}])/" + r"root/",
            r"/work" + r"/(?:main|shared)\b",
            r"/tmp/" + r"pytest-of-",
        )
    )
)


def test_no_file_names_a_package_registry_or_a_path_of_a_developers_machine() -> None:
    found: list[str] = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if any(host in line for host in _REGISTRIES) or _OWN_PATHS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_the_first_two_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    first = next(block for block in blocks_of(ROOT / "README.md") if block.language == "sh")
    commands = [line.partition("#")[0].split() for line in first.text.splitlines()][:2]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for command in commands:
        assert command[0] == "make"
        assert command[1] in targets


def test_every_target_of_the_makefile_is_phony_and_the_documentation_names_only_such() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    phony = set(re.findall(r"^\.PHONY:(.*)$", makefile, re.M)[0].split())
    assert targets == phony
    named: set[str] = set()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        named |= set(re.findall(r"(?:`|^)make ([a-z-]+)", path.read_text(), re.M))
    assert named <= targets


def test_the_table_of_floors_names_every_module_of_the_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = settings["tool"]["importlinter"]["contracts"][0]
    modules = {name for layer in contract["layers"] for name in re.findall(r"\w+", layer)}
    text = (ROOT / "CONTRIBUTING.md").read_text()
    missing = {name for name in modules if not re.search(rf"`{name}(?:/|\.py)`", text)}
    assert not missing


def test_the_changelog_has_a_place_for_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\]", text, re.M)
    assert headings
    assert headings[0] == "Unreleased"


def test_lines_of_text_are_not_wider_than_a_screen() -> None:
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 130 and not line.startswith(("|", "- ["))
    ]
    assert not wide
