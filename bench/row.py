"""What a row is to the runner: a name, a sentence, and a function that measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Result


class Unmeasurable(Exception):
    """A row cannot be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure, and where files may be made."""

    quick: bool
    room: Path
    """A folder of this row alone, removed afterwards."""

    def times(self, full: int, quick: int) -> int:
        """Choose between the number of a full and of a quick run."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Row:
    """One group of results. ``measure`` gives them as they are known."""

    name: str
    what: str
    measure: Callable[[Plan], Iterator[Result]]
