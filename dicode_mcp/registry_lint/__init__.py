"""Checks the files of a registry for its CI; a program of its own, which needs no server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dicode_mcp.clock import SystemClock
from dicode_mcp.registry_lint import fetching
from dicode_mcp.registry_lint.reading import Reader, shown_from
from dicode_mcp.registry_lint.rules import Finding, findings_of, repeated
from dicode_mcp.spec.problems import Problem, in_order
from dicode_mcp.spec.taskset.catalogue import Listing


def lint_registry(
    path: str,
    *,
    cwd: str,
    environ: Mapping[str, str],
    fetch: bool = False,
    private: bool = False,
) -> dict[str, Any]:
    """Check a registry: ``{entries, errors, warnings}``, the latter two lists of problems.

    ``fetch`` reads what the entries name too; ``private``: a private network is no fault.
    """
    with TemporaryDirectory(prefix="dicode-lint-") as scratch:
        reader = Reader(Path(path), Path(scratch) / "inline", SystemClock())
        catalogue = reader.catalogue()
        errors = reader.problems(catalogue)
        listings = catalogue.listings
        told: list[fetching.Told] = [
            (listing, finding)
            for listing in listings
            for finding in findings_of(listing, private=private)
        ]
        told += repeated(listings)
        if fetch:
            checkouts = fetching.open_checkouts(Path(scratch), environ)
            good = [each for each in listings if not _refused(each, told)]
            told += asyncio.run(fetching.fetch_all(good, checkouts, reader, private=private))
        if not listings and not errors:
            where = reader.tree.name_of(Path(path))
            errors.append(Problem(where, 0, 0, "", "offers nothing", "add entries"))
        errors += [_problem(reader, *each) for each in told if not _is_warning(each)]
        warnings = [_problem(reader, *each) for each in told if _is_warning(each)]
    return {
        "entries": len(listings),
        "errors": _views(errors, reader.tree.root, Path(cwd)),
        "warnings": _views(warnings, reader.tree.root, Path(cwd)),
    }


def _is_warning(told: fetching.Told) -> bool:
    return isinstance(told[1], Finding) and told[1].warning


def _refused(listing: Listing, told: Iterable[fetching.Told]) -> bool:
    """Tell whether an entry's URL is at fault already: nothing is fetched from there."""
    return any(
        each is listing
        and isinstance(what, Finding)
        and not what.warning
        and what.path[:1] == ("ref",)
        for each, what in told
    )


def _problem(reader: Reader, listing: Listing, told: Finding | Problem) -> Problem:
    if isinstance(told, Problem):
        return told
    return reader.problem(listing, told.path, told.message, told.hint)


def _views(problems: Iterable[Problem], root: Path, cwd: Path) -> list[dict[str, Any]]:
    return [p.as_dict() for p in in_order(shown_from(p, root, cwd) for p in problems)]
