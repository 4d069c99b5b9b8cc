"""The smallest permissions a task gets along with, from what its last runs used. Pure.

What was declared is left out only when enough runs show that they do without, and only where their
whole use of it can be seen; what was refused is added when a run failed over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from dicode_mcp.runs.accesses import (
    EVERY,
    Access,
    Seen,
    SeenRun,
    covered_net,
    covered_program,
    covers_net,
    covers_task,
    mark_of,
)
from dicode_mcp.runs.findings import Field, Finding, calls
from dicode_mcp.runs.wanting import Forbidden, Wanted
from dicode_mcp.spec.model import Permissions

ENOUGH = 5
"""Runs that succeeded, before anything is called unused."""
_MOST_HOSTS = 10
_FIELDS = ("env", "fs", "net", "run", "sys", "dicode")
_CALLS = ("list_tasks", "get_runs", "secrets_write", "runs_replay")
_GLOBS = ("tasks", "agents")
_NATIVE = ("TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "LANG", "TERM")
_NATIVE_STARTS = ("LC_", "LD_", "MALLOC_", "OPENSSL_", "PYTHON", "NODE_", "UV_")
_NATIVE_ENDS = ("_PROXY", "_proxy")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to declare, and why."""

    permissions: Mapping[str, Any]
    """The block, in a manifest's form."""
    add: tuple[Finding, ...] = ()
    """Refused, and a run failed; part of the block."""
    wider: tuple[Finding, ...] = ()
    """Declared and not used so far; not part of the block."""
    refused: tuple[Finding, ...] = ()
    """Refused, and not proposed."""
    unseen: Mapping[str, str] | None = None
    """The fields whose use cannot be seen whole, and why: nothing of them is called unused."""
    runs: int = 0
    """On how many runs what is called unused stands."""


def suggest(
    seen: Seen,
    permissions: Permissions,
    declared: Mapping[str, Any],
    *,
    runtime: str,
    folder: str,
    home: str,
    forbidden: Forbidden,
) -> Suggestion:
    """Give what a task should declare.

    ``declared`` is ``permissions`` as its manifest shows them: the same entries in the same order,
    without values of the server's environment.
    """
    evidence = seen.evidence(mark_of(permissions))
    unseen = _unseen(evidence, runtime)
    judge = _Judge(frozenset[Access]().union(*(run.accesses for run in evidence)), permissions)
    enough = len(evidence) >= ENOUGH
    wider: list[Finding] = []
    block: dict[str, Any] = {}
    for name in _FIELDS:
        entries = declared.get(name)
        if not entries:
            continue
        kept, found = entries, list[Finding]()
        if enough and name not in unseen:
            kept, found = judge.field(name, entries)
        wider += found
        if kept:
            block[name] = kept
    wanted = Wanted(seen, permissions, folder, home, forbidden)
    wanted.collect()
    _merge(block, wanted.add)
    return Suggestion(
        {name: block[name] for name in _FIELDS if name in block},
        tuple(wanted.add),
        tuple(wider),
        tuple(wanted.refused),
        {name: why for name, why in unseen.items() if declared.get(name)},
        len(evidence),
    )


def wider_than_used(
    seen: Seen, permissions: Permissions, declared: Mapping[str, Any], *, runtime: str, folder: str
) -> tuple[Finding, ...]:
    """Give what is declared and was not used by enough runs."""
    found = suggest(
        seen,
        permissions,
        declared,
        runtime=runtime,
        folder=folder,
        home="",
        forbidden=lambda path, how: None,
    )
    return found.wider


def _unseen(evidence: Sequence[SeenRun], runtime: str) -> dict[str, str]:
    """Name the fields whose use is not seen whole."""
    found: dict[str, str] = {}
    kinds = {access.kind for run in evidence for access in run.accesses}
    if runtime == "python":
        found["sys"] = "Python does not tell of it"
    elif runtime == "deno":
        found["run"] = "Deno does not tell of programs that are started"
    else:
        return dict.fromkeys(_FIELDS, "this runtime does not tell what is used")
    if "blind" in kinds or "run" in kinds:
        why = "programs and forks that the task starts use them out of sight"
        found |= {"fs": why, "env": why}
    return found


# ── What is declared ──


class _Judge:
    """Compares what is declared with what was used."""

    def __init__(self, accesses: frozenset[Access], permissions: Permissions) -> None:
        self._used = {(a.kind, a.what) for a in accesses if a.allowed}
        self._permissions = permissions

    def _of(self, kind: str) -> list[str]:
        return sorted(what for its, what in self._used if its == kind)

    def field(self, name: str, entries: Any) -> tuple[Any, list[Finding]]:
        """Give what to keep of a field, and what is wider than used."""
        if name == "dicode":
            return self._dicode(cast("Mapping[str, Any]", entries))
        judge = {"fs": self._fs, "env": self._env, "net": self._net, "run": self._run}
        decide = judge.get(name, self._sys)
        kept: list[Any] = []
        found: list[Finding] = []
        for index, entry in enumerate(cast("Sequence[Any]", entries)):
            instead = decide(index, entry)
            if instead is None:
                found.append(Finding(cast("Field", name), entry))
            elif instead != [entry]:
                found.append(Finding(cast("Field", name), entry, instead=instead))
                kept += instead
            else:
                kept.append(entry)
        return kept, found

    def _fs(self, index: int, entry: Any) -> list[Any] | None:
        grant = self._permissions.fs[index]
        letters = "".join(
            letter
            for letter, kind in (("r", "read"), ("w", "write"))
            if letter in grant.permission and (kind, grant.path) in self._used
        )
        if not letters:
            return None
        return [entry] if letters == grant.permission else [{**entry, "permission": letters}]

    def _env(self, index: int, entry: Any) -> list[Any] | None:
        granted = self._permissions.env[index]
        name = granted.name
        native = name in _NATIVE or name.startswith(_NATIVE_STARTS) or name.endswith(_NATIVE_ENDS)
        used = native or granted.optional or {("env", name), ("env", EVERY)} & self._used
        return [entry] if used else None

    def _net(self, index: int, entry: Any) -> list[Any] | None:
        rule = self._permissions.net[index]
        places = [place for place in self._of("net") if covers_net(rule, place)]
        if rule != EVERY:
            return [entry] if places else None
        others = [each for each in self._permissions.net if each != EVERY]
        places = [place for place in places if not covered_net(others, place)]
        if not places:
            return None
        return [entry] if len(places) > _MOST_HOSTS else places

    def _run(self, index: int, entry: Any) -> list[Any] | None:
        name = self._permissions.run[index]
        programs = self._of("run")
        if name == EVERY:
            others = [each for each in self._permissions.run if each != EVERY]
            return [each for each in programs if covered_program(others, each) is None] or None
        return [entry] if any(covered_program([name], each) for each in programs) else None

    def _sys(self, index: int, entry: Any) -> list[Any] | None:
        name = self._permissions.sys[index]
        return [entry] if {("sys", name), ("sys", EVERY)} & self._used else None

    def _dicode(self, entries: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
        used = calls(self._of("dicode"))
        kept: dict[str, Any] = {}
        found: list[Finding] = []
        for name, value in entries.items():
            if name in _GLOBS:
                asked = used.get(name, [])
                globs = [g for g in value if any(covers_task(g, target) for target in asked)]
                found += [Finding("dicode", {name: [g]}) for g in value if g not in globs]
                if globs:
                    kept[name] = globs
            elif name in _CALLS and value is True and name not in used:
                found.append(Finding("dicode", {name: True}))
            else:
                kept[name] = value
        return kept, found


def _merge(block: dict[str, Any], add: Iterable[Finding]) -> None:
    for finding in add:
        if finding.field == "dicode":
            grants = dict(block.get("dicode") or {})
            for name, value in cast("dict[str, Any]", finding.value).items():
                had = grants.get(name)
                grants[name] = [*(had or []), *value] if isinstance(value, list) else value
            block["dicode"] = grants
        else:
            block[finding.field] = [*(block.get(finding.field) or []), finding.value]
