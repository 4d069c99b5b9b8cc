"""The tree of files of one run, as a list to be carried out: what is shown, where, and how.

Links are followed here, on the server's side, and shown as links; what is shown is opened later by
its real path without following any, so a link that somebody swaps in between is refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

Entry = list[object]
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Place:
    """A path to show. ``must``: a run without it makes no sense."""

    path: str
    write: bool = False
    execute: bool = True
    device: bool = False
    must: bool = False

    @property
    def attributes(self) -> str:
        """How it is shown, in the words of ``cage.tree``."""
        out = ["nosuid"]
        out += [] if self.write or self.device else ["ro"]
        out += [] if self.device else ["nodev"]
        out += [] if self.execute else ["noexec"]
        return " ".join(out)


@dataclass(slots=True)
class Shown:
    """Collects places; a later one of the same path takes the earlier one's."""

    links: dict[str, str] = field(default_factory=dict[str, str])
    places: dict[str, Place] = field(default_factory=dict[str, Place])
    looks: dict[str, str | None] = field(default_factory=dict[str, str | None])
    """What was found at each path that was looked at; see ``look``."""

    def add(self, place: Place) -> str | None:
        """Take a place and the links on the way; gives its real path, None where there is none."""
        real = self.follow(place.path)
        if real is not None:
            self.places[real] = Place(real, place.write, place.execute, place.device, place.must)
        return real

    def follow(self, path: str) -> str | None:
        """Give the real path and note the links that lead to it."""
        waiting = [part for part in path.split("/") if part]
        at = ""
        followed = 0
        while waiting:
            here = f"{at}/{waiting.pop(0)}"
            target = self._look(here)
            if target is None:
                return None
            if not target:
                at = here
                continue
            followed += 1
            if followed > _MOST_LINKS:
                return None
            self.links[here] = target
            whole = os.path.normpath(os.path.join(at or "/", target))
            waiting = [*(part for part in whole.split("/") if part), *waiting]
            at = ""
        return at or None

    def _look(self, path: str) -> str | None:
        # What is not there is looked at again: it may have been made since.
        if self.looks.get(path) is None:
            self.looks[path] = look(path)
        return self.looks[path]

    def entries(self) -> list[Entry]:
        """Give the list, parents first, without what shows by itself."""
        places = self._needed()
        covered = [place.path for place in places]
        links: list[Entry] = [
            ["link", path, target]
            for path, target in self.links.items()
            if not is_below_any(os.path.dirname(path), covered)
        ]
        binds: list[Entry] = [["bind", p.path, p.attributes, p.must] for p in places]
        return [*links, *binds]

    def _needed(self) -> list[Place]:
        found: list[Place] = []
        for path in sorted(self.places, key=lambda each: (each.count("/"), each)):
            place = self.places[path]
            above = [p for p in found if is_below(path, p.path)]
            nearest = max(above, key=lambda p: len(p.path), default=None)
            if nearest is None or nearest.attributes != place.attributes:
                found.append(place)
        return found


def look(path: str) -> str | None:
    """Give where a link leads; empty for what is no link, None where nothing can be seen."""
    try:
        return os.readlink(path)
    except OSError as error:
        return "" if error.errno == errno.EINVAL else None


def is_below(path: str, folder: str) -> bool:
    """Tell whether a path is a folder or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_below_any(path: str, folders: Iterable[str]) -> bool:
    """Tell whether a path is below one of several."""
    return any(is_below(path, folder) for folder in folders)
