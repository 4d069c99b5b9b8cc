"""What the documentation shows is accepted by the code that reads it."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from docs_pages import Block, blocks, dicode_commands, inline_code, pages

from dicode_mcp.cli import main as cli
from dicode_mcp.config import read_config
from dicode_mcp.spec.loader import validate_text
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.documents import read_set

WRONG = "# This file is wrong on purpose."


def _keys(block: Block) -> set[str]:
    document: Any = yaml.safe_load(block.text)
    return set(cast("dict[str, Any]", document)) if isinstance(document, dict) else set()


def _problems(block: Block) -> list[str]:
    document: Any = yaml.safe_load(block.text)
    if isinstance(document, dict) and cast("dict[str, Any]", document).get("kind") == "TaskSet":
        return _set_problems(block)
    if "trigger" in _keys(block) or "runtime" in _keys(block):
        return [str(problem) for problem in validate_text(block.text)]
    try:
        read_config(
            block.text,
            "dicode.yaml",
            file=Path("/nowhere/dicode.yaml"),
            environ={},
            home=Path("/nowhere"),
        )
    except SpecError as error:
        return [str(problem) for problem in error.problems]
    return []


def _set_problems(block: Block) -> list[str]:
    try:
        entries = read_set(block.text, "taskset.yaml").entries
    except SpecError as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for entry in entries for problem in entry.problems]


YAML = blocks("yaml")


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.place)
def test_every_manifest_and_configuration_shown_is_read_without_an_error(block: Block) -> None:
    problems = _problems(block)
    if WRONG in block.text:
        assert problems
    else:
        assert not problems, "\n".join(problems)


def test_both_kinds_of_file_are_shown() -> None:
    assert sum("trigger" in _keys(block) for block in YAML) > 5
    assert sum("sources" in _keys(block) for block in YAML) > 1


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_every_script_shown_compiles(block: Block) -> None:
    compile(block.text, block.place, "exec", dont_inherit=True)


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.place)
def test_every_json_text_shown_is_json(block: Block) -> None:
    json.loads(block.text)


COMMANDS = [
    pytest.param(words, id=f"{block.place} {' '.join(words)}")
    for block in blocks("console", "sh")
    for words in dicode_commands(block)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_shown_is_one_that_the_command_line_knows(words: list[str]) -> None:
    args = cli._parse(words)  # pyright: ignore[reportPrivateUsage]
    assert isinstance(args, argparse.Namespace)
    assert args.handler


def test_commands_named_in_the_text_exist() -> None:
    wrong: list[str] = []
    for page in pages():
        for text in inline_code(page):
            words = text.split()
            if words[:1] == ["dicode"] and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
                wrong += [] if _is_command(words[1:]) else [f"{page.name}: {text}"]
    assert not wrong, "\n".join(wrong)


def _is_command(words: list[str]) -> bool:
    """Tell whether the parser knows the command; arguments may be placeholders or left out."""
    group = words[0] in ("task", "source", "registry")
    try:
        cli._parse([*words[: 2 if group else 1], "--help"])  # pyright: ignore[reportPrivateUsage]
    except SystemExit as end:
        return end.code == 0
    return True
