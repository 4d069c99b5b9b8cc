"""Reading what uv says when it fails, and the conditions that tell of an environment. Pure."""

from __future__ import annotations

import re

from dicode_mcp.conditions import Condition, ConditionType
from dicode_runtimes.uv.block import Block

_PASSWORD = re.compile(r"//[^/@\s]+@")
_MOST_TEXT = 500
_MOST_NAMES = 5


def preparing(name: str, block: Block) -> Condition:
    """Say that an environment is being made."""
    names = ", ".join(block.dependencies[:_MOST_NAMES]) or "no packages"
    more = len(block.dependencies) - _MOST_NAMES
    text = names + (f" and {more} more" if more > 0 else "")
    return Condition(
        ConditionType.DEPENDENCIES,
        False,
        "Preparing",
        f"{name}:{block.line}: installing {text}; runs fail until it is done",
    )


def failed(name: str, block: Block, said: str) -> Condition:
    """Say why an environment could not be made, in uv's words, and what to do."""
    remedy = _remedy(said)
    message = f"{name}:{block.line}: {said}; {remedy}"
    return Condition(ConditionType.READY, False, "DependencyError", message)


_TERMINAL = "\u00d7\u2570\u2500\u25b6\u251c\u2502 "
"""What draws the tree of causes where there is a terminal."""


def words(stderr: str, *, timed_out: bool) -> str:
    """Give uv's own sentences: the error and its causes, without what is only for a terminal."""
    if timed_out:
        return "uv did not end in time"
    kept: list[str] = []
    for line in stderr.splitlines():
        text = line.strip().lstrip(_TERMINAL)
        if text.startswith("error:"):
            kept = [text.removeprefix("error:").strip()]
        elif text.startswith("cause:") and kept:
            kept.append(text.removeprefix("cause:").strip())
        elif text.startswith("hint:"):
            break
        elif kept and line.startswith((" ", "\t")):
            kept.append(text)
    said = ": ".join(dict.fromkeys(each for each in kept if each))
    return _PASSWORD.sub("//***@", said)[:_MOST_TEXT] or "uv could not make the environment"


def is_passing(said: str) -> bool:
    """Tell whether the failure may pass by itself: the network, an index that is down."""
    return any(mark in said for mark in ("Failed to fetch", "error sending request", "in time"))


_NO_WHEEL = ("uilding from source is disabled", "no wheel", "no usable wheel")


def _remedy(said: str) -> str:
    if is_passing(said):
        return "it is tried again by itself; check the package index and the network"
    if any(mark in said for mark in _NO_WHEEL):
        return "only wheels are installed, so that nothing runs at install: name a version with one"
    if "No interpreter" in said:
        return "correct requires-python, or install that Python where the server finds it"
    return "correct the `# /// script` block of the script"
