"""The registries of dicode.yaml: kept as they were last fetched, searched, asked for one name.

A registry is a TaskSet, so it is read as one; nothing of what it offers is fetched. Which ref an
installed entry gets is here, where it is written is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Checkouts
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.service.offers import Offer, chosen, matching, repository_of, words_of
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.shelves import Shelf, ShelfPlace
from dicode_mcp.service.views import problem_view
from dicode_mcp.spec.problems import Problem
from dicode_mcp.spec.taskset.resolution import Declared

INSTALL = "dicode task install <name>"
MAX_PROBLEMS = 20
_ADD = (
    "add one to dicode.yaml and restart the server: "
    "`registries: [https://HOST/OWNER/REPOSITORY]` (a git URL or a folder that holds a TaskSet)"
)


class Declarations(Protocol):
    """Knows which repository a task in force is from."""

    def declared(self, entry: Entry) -> Declared | None:
        """Give what an entry's source declares."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """Offers, and what is wrong with registries: the others answer all the same."""

    offers: tuple[Offer, ...] = ()
    problems: tuple[Problem, ...] = ()


class Registries:
    """What callers may ask of the registries, in the order of the configuration."""

    def __init__(
        self,
        places: Sequence[ShelfPlace],
        *,
        checkouts: Checkouts,
        home: Path,
        clock: Clock,
        tasks: Registry,
        declarations: Declarations,
    ) -> None:
        self._shelves = [Shelf(place, checkouts, home, clock) for place in places]
        self._tasks = tasks
        self._declarations = declarations

    async def run(self) -> None:
        """Own what is being fetched until cancelled."""
        async with asyncio.TaskGroup() as group:
            for shelf in self._shelves:
                group.create_task(shelf.run(), name=f"registry {shelf.name}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the registries."""
        return tuple(shelf.name for shelf in self._shelves)

    async def search(
        self, principal: Principal, query: str, *, registry: str | None = None, limit: int = 50
    ) -> dict[str, Any]:
        """Search names, descriptions, tags and paths: ``{tasks, count, install, problems}``.

        Every word has to fit; the best come first. Raises INVALID_ARGUMENT, and NOT_FOUND for a
        registry that is not configured. Without any registry the answer's ``note`` says so.
        """
        principal.require("read")
        words = words_of(query)
        if not self._shelves:
            note = f"no registry is configured; {_ADD}"
            return {"tasks": [], "count": 0, "install": INSTALL, "problems": [], "note": note}
        found = await self._all(registry)
        offers = matching(found.offers, words)
        installed = self._installed(principal)
        return {
            "tasks": [_offer_view(offer, installed) for offer in offers[:limit]],
            "count": len(offers),
            "install": INSTALL,
            "problems": _problems_view(found.problems),
        }

    async def find(self, query: str, registry: str | None = None) -> list[Offer]:
        """Give the offers that every word of a query fits, best first."""
        words = words_of(query)
        return matching((await self._all(registry)).offers, words)

    async def get(self, name: str) -> Offer:
        """Give the offer that a name means. Raises NOT_FOUND and CONFLICT, naming what there is."""
        if not self._shelves:
            message = f"{name[:128]!r} is no URL, and no registry is configured"
            raise DicodeError(Code.NOT_FOUND, message, hint=f"give a git URL, or {_ADD}")
        found = await self._all(None)
        try:
            return chosen(found.offers, name)
        except DicodeError as error:
            if error.code is Code.NOT_FOUND and found.problems:
                told = "; ".join(str(problem) for problem in found.problems[:3])
                error.hint = f"{error.hint}; registries have problems: {told}"
            raise

    async def _all(self, registry: str | None) -> Found:
        shelves = self._shelves if registry is None else [self._named(registry)]
        readings = await asyncio.gather(*(shelf.read() for shelf in shelves))
        return Found(
            tuple(offer for reading in readings for offer in reading.offers),
            tuple(problem for reading in readings for problem in reading.problems),
        )

    def _named(self, name: str) -> Shelf:
        for shelf in self._shelves:
            if shelf.name == name:
                return shelf
        known = ", ".join(self.names) or "none"
        message = f"there is no registry {name[:128]!r}; registries here: {known}"
        raise DicodeError(Code.NOT_FOUND, message, hint=f"leave it out to search all, or {_ADD}")

    def _installed(self, principal: Principal) -> dict[str, list[tuple[str, str]]]:
        """Give path and id of each task whose repository is known, by repository."""
        out: dict[str, list[tuple[str, str]]] = {}
        for entry in self._tasks.entries() if self._shelves else ():
            declared = self._declarations.declared(entry)
            remote = declared.tree.remote if declared else None
            if declared is None or remote is None or not principal.sees(entry.id):
                continue
            if declared.folder.is_relative_to(declared.tree.root):
                inner = declared.folder.relative_to(declared.tree.root).as_posix()
                out.setdefault(repository_of(remote.url), []).append((_plain(inner), entry.id))
        return out


def _offer_view(offer: Offer, installed: Mapping[str, list[tuple[str, str]]]) -> dict[str, Any]:
    """Show an offer; ``installed_as`` are the tasks that are from its place."""
    ids = _ids_of(offer, installed)
    view: dict[str, Any] = {
        "path": offer.path,
        "name": offer.name,
        "description": offer.description,
        "repo": offer.repo,
        "tags": list(offer.tags),
        "registry": offer.registry,
        "installed": bool(ids),
    }
    if ids:
        view["installed_as"] = ids
    if offer.ref is None:
        view["installable"] = False
    elif offer.ref.url is not None:
        view["url"] = offer.ref.url
    return view


def _ids_of(offer: Offer, installed: Mapping[str, list[tuple[str, str]]]) -> list[str]:
    ref = offer.ref
    if ref is None or ref.url is None:
        return []
    start = _plain(ref.path or "")
    inside = installed.get(repository_of(ref.url), ())
    return sorted(i for path, i in inside if not start or f"{path}/".startswith(f"{start}/"))[:5]


def _plain(path: str) -> str:
    """Give the folder of a path inside a repository, ``""`` for its root."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if parts and parts[-1].endswith((".yaml", ".yml")):
        parts.pop()
    return "/".join(parts)


def _problems_view(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    every = list(problems)
    shown = [problem_view(problem) for problem in every[:MAX_PROBLEMS]]
    if len(every) > MAX_PROBLEMS:
        shown.append({"message": f"and {len(every) - MAX_PROBLEMS} more"})
    return shown
