"""The command line, from its own parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from dicode_mcp.cli.parser import build_parser
from sections.markdown import code, sentence, table

_EVERYWHERE = frozenset({"help", "data_dir", "config", "json", "version"})


def everywhere() -> str:
    """Give the options that every command takes."""
    rows = [
        _row(action)
        for action in _actions(build_parser())
        if action.dest in _EVERYWHERE and not isinstance(action, argparse._SubParsersAction)  # pyright: ignore[reportPrivateUsage, reportUnknownArgumentType]
    ]
    return table(["Option", "Meaning"], rows)


def commands() -> str:
    """Give each command with its arguments."""
    return "\n\n".join(_command(parser, aliases) for parser, aliases in _leaves(build_parser()))


def _leaves(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, list[str]]]:
    for action in _actions(parser):
        if not isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            continue
        names: dict[int, list[str]] = {}
        for name, child in action.choices.items():  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            names.setdefault(id(child), []).append(str(name))  # pyright: ignore[reportUnknownArgumentType]
        for child in dict.fromkeys(action.choices.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType, reportUnknownArgumentType]
            assert isinstance(child, argparse.ArgumentParser)
            below = list(_leaves(child))
            yield from below or [(child, names[id(child)][1:])]


def _command(parser: argparse.ArgumentParser, aliases: list[str]) -> str:
    own = [a for a in _actions(parser) if a.dest not in _EVERYWHERE]
    parts = [f"### {code(parser.prog)}", code(_usage(parser, own))]
    about = " ".join((parser.description or "").split())
    parts.append(sentence(about[:1].upper() + about[1:]))
    if aliases:
        parts.append("Also called " + ", ".join(code(f"dicode {alias}") for alias in aliases) + ".")
    if own:
        parts.append(table(["Argument", "Meaning"], [_row(action) for action in own]))
    return "\n\n".join(parts)


def _usage(parser: argparse.ArgumentParser, own: list[argparse.Action]) -> str:
    words = [parser.prog]
    for action in own:
        if action.option_strings:
            continue
        name = _metavar(action)
        many = {"?": f"[{name}]", "*": f"[{name} …]"}
        words.append(many.get(str(action.nargs), name))
    if any(action.option_strings for action in own):
        words.append("[options]")
    return " ".join(words)


def _row(action: argparse.Action) -> list[str]:
    if action.option_strings:
        value = "" if action.nargs == 0 else f" {_metavar(action)}"
        name = ", ".join(code(option + value) for option in action.option_strings)
    else:
        name = code(_metavar(action))
    return [name, sentence(_help(action))]


def _help(action: argparse.Action) -> str:
    text = action.help or ""
    text = text[:1].upper() + text[1:]
    if action.choices and action.metavar is None:
        text += (": " if text else "") + ", ".join(code(str(choice)) for choice in action.choices)
    default = action.default
    if action.nargs != 0 and default not in (None, argparse.SUPPRESS) and default != []:
        text += f" (default {code(str(default))})"
    return text


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return action.dest.upper().replace("_", "-")


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # pyright: ignore[reportPrivateUsage]
