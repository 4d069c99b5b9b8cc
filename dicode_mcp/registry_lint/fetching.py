"""Fetches what the entries of a registry name, and looks whether a task or a set is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

from dicode_mcp.clock import Clock, SystemClock
from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import Checkouts, GitRef, Revision
from dicode_mcp.registry_lint.reading import Reader
from dicode_mcp.registry_lint.rules import Finding
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.spec.giturl import short_url
from dicode_mcp.spec.problems import Problem, SpecError
from dicode_mcp.spec.taskset.catalogue import Listing
from dicode_mcp.spec.taskset.documents import Ref
from dicode_mcp.spec.taskset.merge import compose
from dicode_mcp.spec.taskset.world import Spot, Tree, What


class Fetcher(Checkouts, Protocol):
    """Checkouts that have to run to fetch."""

    async def run(self) -> None:
        """Own what is being fetched until cancelled."""
        ...


OpenCheckouts = Callable[[Path, Mapping[str, str]], Fetcher]
Told = tuple[Listing, Finding | Problem]


def open_checkouts(data_dir: Path, environ: Mapping[str, str]) -> Fetcher:
    """Make checkouts below a folder of their own."""
    clock: Clock = SystemClock()
    return GitCheckouts(data_dir, environ=environ, clock=clock, random=Random())


async def fetch_all(
    listings: Sequence[Listing], checkouts: Fetcher, reader: Reader, *, private: bool
) -> list[Told]:
    """Fetch every entry that is in another repository; gives what is wrong, in order."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(checkouts.run())
        try:
            found = await asyncio.gather(
                *(_fetched(listing, checkouts, reader, private=private) for listing in listings)
            )
        finally:
            running.cancel()
    return [told for each in found for told in each]


async def _fetched(
    listing: Listing, checkouts: Checkouts, reader: Reader, *, private: bool
) -> list[Told]:
    ref = listing.ref
    if ref is None or ref.url is None:
        return []
    wanted = GitRef(ref.url, ref.branch or "main", tag=ref.tag, commit=ref.commit, trusted=private)
    try:
        revision = await checkouts.latest(wanted, now=True)
    except DicodeError as error:
        what = f"cannot be fetched: {error.message}"
        return [(listing, Finding(("ref",), what, error.hint or ""))]
    return await asyncio.to_thread(_looked, listing, ref, revision, reader)


def _looked(listing: Listing, ref: Ref, revision: Revision, reader: Reader) -> list[Told]:
    shown = short_url(ref.url or "")
    tree = Tree(revision.root, revision.commit, confined=True, own=False, shown=shown)
    path = Path(os.path.normpath(tree.root / (ref.path or "")))
    if not path.is_relative_to(tree.root):
        hint = "write it relative to the repository's root"
        return [(listing, Finding(("ref", "path"), "leaves the repository", hint))]
    spot = reader.world.look(path, tree)
    fault = _absence(spot, tree, reader)
    if fault:
        where = ("ref", "path") if ref.path else ("ref",)
        hint = "name a folder that holds a task.yaml or a taskset.yaml, or such a file"
        return [(listing, Finding(where, f"leads to {tree.name_of(path)}, {fault}", hint))]
    return [(listing, problem) for problem in _problems(listing, spot, tree, reader)]


def _absence(spot: Spot, tree: Tree, reader: Reader) -> str:
    if spot.what is What.NOTHING:
        return f"which cannot be used: {spot.fault}"
    if spot.what is What.FOLDER and not reader.world.search(spot.path, tree).hits:
        return "which holds neither a task nor a set"
    return ""


def _problems(listing: Listing, spot: Spot, tree: Tree, reader: Reader) -> list[Problem]:
    if spot.what is What.TASK:
        shown = tree.name_of(spot.path / "task.yaml")
        layers = listing.layers
        return list(
            reader.load(spot.path, tree.root, shown, lambda read: compose(read, layers).document)
        )
    if spot.what is What.SET:
        try:
            reader.world.read_set(spot.path, tree.name_of(spot.path))
        except SpecError as error:
            return list(error.problems)
    return []
