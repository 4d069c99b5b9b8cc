"""What runs used of what they may use, and what they were refused: values, and their bounds.

Most of it is told by the task's own process and is a hint: it is bounded here, and judged anew by
what the manifest says. Pure.
"""

from __future__ import annotations

import fnmatch
import hashlib
import ipaddress
import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from dicode_mcp.spec.model import Permissions
from dicode_mcp.spec.permissions import split_port

Kind = Literal["read", "write", "net", "run", "sys", "env", "dicode", "blind"]
"""``blind``: something that happens out of sight was done, such as a fork."""
KINDS: frozenset[str] = frozenset(get_args(Kind))
MOST = 200
"""Accesses of one run."""
MOST_OF_TASK = 400
"""Different accesses of all kept runs of one task."""
MOST_RUNS = 20
"""Runs of a task that are kept."""
LONGEST = 300
"""Characters of what was accessed."""
EVERY = "*"

Hint = tuple[Kind, str]
"""What a process says that it used: not whether it may."""


@dataclass(frozen=True, slots=True, order=True)
class Access:
    """One thing that a run used, or was refused.

    A path below a grant is told as the grant; ``dicode`` as the line of ``permissions.dicode``.
    """

    kind: Kind
    what: str
    allowed: bool


@dataclass(frozen=True, slots=True)
class SeenRun:
    """What one run used. ``whole``: all that can be seen of it was; ``ok``: it succeeded.

    ``under`` marks the permissions it ran under, see ``mark_of``.
    """

    id: str
    at_ms: int
    ok: bool
    whole: bool
    accesses: frozenset[Access] = frozenset()
    under: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the last runs of a task used, oldest first."""

    runs: tuple[SeenRun, ...] = ()

    def plus(self, run: SeenRun) -> Seen:
        """Add a run; the same run's earlier part (before it asked) is taken into it."""
        before = next((each for each in self.runs if each.id == run.id), None)
        if before is not None:
            whole = run.whole and before.whole
            run = replace(run, whole=whole, accesses=run.accesses | before.accesses)
        kept = [each for each in self.runs if each.id != run.id][-(MOST_RUNS - 1) :]
        known = frozenset[Access]().union(*(each.accesses for each in kept))
        room = MOST_OF_TASK - len(known | run.accesses)
        if room < 0:
            new = sorted(run.accesses - known)
            fitting = frozenset(new[: max(0, len(new) + room)])
            run = replace(run, accesses=(run.accesses & known) | fitting)
        return Seen((*kept, run))

    def of(self, kind: Kind, *, allowed: bool) -> dict[str, list[SeenRun]]:
        """Give what was accessed, each with the runs that did."""
        found: dict[str, list[SeenRun]] = {}
        for run in self.runs:
            for access in sorted(run.accesses):
                if access.kind == kind and access.allowed is allowed:
                    found.setdefault(access.what, []).append(run)
        return found

    def evidence(self, under: str) -> tuple[SeenRun, ...]:
        """Give the runs that show what is not needed: under these permissions, whole, a success.

        What was declared only now has not been used by earlier ones.
        """
        return tuple(run for run in self.runs if run.ok and run.whole and run.under == under)


def mark_of(permissions: Permissions) -> str:
    """Give a mark that changes with what is declared; values of the environment are not in it."""
    told = permissions.model_dump(mode="json", exclude={"env"})
    told["env"] = [entry.name for entry in permissions.env]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


# ── What a process tells ──


def read_hints(raw: Any) -> list[Hint]:
    """Take hints of a process; what is none is left out."""
    if not isinstance(raw, list):
        return []
    found: dict[Hint, None] = {}
    for item in cast("list[Any]", raw)[: 2 * MOST]:
        hint = _hint(item)
        if hint is not None:
            found[hint] = None
    return list(found)[:MOST]


def _hint(item: Any) -> Hint | None:
    if not isinstance(item, list) or len(pair := cast("list[Any]", item)) != 2:
        return None
    kind, what = pair
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(what, str):
        return None
    return cast("Kind", kind), what


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a run stood: what it may always read and write besides, and what else is known.

    ``gated``: a gate tells of the network that was allowed, so that hints need not.
    """

    folder: str
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    env: frozenset[str] = field(default_factory=frozenset[str])
    gated: bool = False


def judged(hints: Iterable[Hint], permissions: Permissions, ground: Ground) -> frozenset[Access]:
    """Give hints as accesses, judged by what is declared; what every task may is left out."""
    found: dict[Access, None] = {}
    for kind, what in hints:
        access = _judge(kind, what, permissions, ground)
        if access is not None and len(found) < MOST:
            found[access] = None
    return frozenset(found)


def _judge(kind: Kind, what: str, permissions: Permissions, ground: Ground) -> Access | None:
    if kind == "blind":
        return Access("blind", plain(what)[:40], True)
    if not what or len(what) > LONGEST or plain(what) != what:
        return None
    if kind in ("read", "write"):
        return _path(kind, what, permissions, ground)
    if kind == "net":
        allowed = covered_net(permissions.net, what)
        return None if allowed and ground.gated else Access(kind, what, allowed)
    if kind == "env":
        if what in ground.env or (what == EVERY and not permissions.env):
            return None
        names = {entry.name for entry in permissions.env}
        return Access(kind, what, what in names or what == EVERY)
    if kind == "run":
        return Access(kind, what, covered_program(permissions.run, what) is not None)
    if kind == "sys":
        return Access(kind, what, what in permissions.sys)
    return None


def plain(text: str) -> str:
    """Give a text without what is not printable: it must not make up lines of its own."""
    return text if text.isprintable() else "".join(c for c in text if c.isprintable())


def _path(
    kind: Literal["read", "write"], what: str, permissions: Permissions, ground: Ground
) -> Access | None:
    path = os.path.normpath(os.path.join(ground.folder, what))
    own = ground.write if kind == "write" else (ground.folder, *ground.read, *ground.write)
    if any(is_below(path, each) for each in own):
        return None
    grant = covered_path(permissions, path, kind)
    return Access(kind, path if grant is None else grant, grant is not None)


# ── What a manifest covers ──


def is_below(path: str, folder: str) -> bool:
    """Tell whether a path is a folder or in it, by its text."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def covered_path(permissions: Permissions, path: str, kind: Kind) -> str | None:
    """Give the granted path that lets a path be read or written."""
    letter = "w" if kind == "write" else "r"
    found = [g.path for g in permissions.fs if letter in g.permission and is_below(path, g.path)]
    return max(found, key=len, default=None)


def covered_net(rules: Sequence[str], place: str) -> bool:
    """Tell whether rules name a place (a host, with or without a port)."""
    return any(covers_net(rule, place) for rule in rules)


def covers_net(rule: str, place: str) -> bool:
    """Tell whether one rule names a place."""
    if rule == EVERY:
        return not _is_inside(split_port(place)[0])
    host, port = split_port(rule)
    there, its_port = split_port(place)
    if port is not None and its_port is not None and port != its_port:
        return False
    host, there = host.lower().rstrip("."), there.lower().rstrip(".")
    if host.startswith("*."):
        return there.endswith(host[1:])
    if _is_localhost(host):
        # The gate knows it by the address that it stands for.
        return _is_localhost(there) or there in ("127.0.0.1", "::1")
    return host == there


def _is_inside(host: str) -> bool:
    """Tell whether a host is written as an address that must be listed itself."""
    if _is_localhost(host.lower().rstrip(".")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_private or address.is_loopback or address.is_link_local


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def covered_program(run: Sequence[str], program: str) -> str | None:
    """Give the entry of ``permissions.run`` that names a program."""
    name = os.path.basename(program)
    for entry in run:
        if entry == program or os.path.basename(entry) == name:
            return entry
    return EVERY if EVERY in run else None


def covers_task(glob: str, target: str) -> bool:
    """Tell whether an entry of ``dicode.tasks`` may have let a reference through.

    Either may be short for the other, as both may mean a sibling: what is unclear counts as used.
    """
    whole = fnmatch.fnmatchcase(target, glob) or fnmatch.fnmatchcase(target, f"*/{glob}")
    return whole or glob.endswith(f"/{target}") or fnmatch.fnmatchcase(f"x/{target}", glob)


def lines_for(accesses: Iterable[Access]) -> list[str]:
    """Give the lines of task.yaml that grant accesses, one for each kind."""
    found: dict[str, list[str]] = {}
    for access in accesses:
        # As JSON: a name with quotes or line ends must not make up lines of its own.
        name = json.dumps(access.what, ensure_ascii=False)
        if access.kind in ("read", "write"):
            how = "r" if access.kind == "read" else "rw"
            found.setdefault("fs", []).append(f"{{path: {name}, permission: {how}}}")
        elif access.kind == "dicode":
            found.setdefault(f"dicode.{access.what}", [])
        elif access.kind != "blind":
            found.setdefault(access.kind, []).append(name)
    return [
        f"permissions.{kind}: [{', '.join(items)}]" if items else f"permissions.{kind}"
        for kind, items in found.items()
    ]


# ── As text, for the store ──


def encode(seen: Seen) -> str:
    """Write what was seen, each access once."""
    every = sorted(frozenset[Access]().union(*(run.accesses for run in seen.runs)))
    number = {access: index for index, access in enumerate(every)}
    return json.dumps(
        {
            "accesses": [[a.kind, a.what, a.allowed] for a in every],
            "runs": [
                [r.id, r.at_ms, r.ok, r.whole, sorted(number[a] for a in r.accesses), r.under]
                for r in seen.runs
            ],
        },
        separators=(",", ":"),
    )


def decode(text: str) -> Seen:
    """Read what ``encode`` wrote."""
    raw: Any = json.loads(text)
    every = [Access(kind, what, allowed) for kind, what, allowed in raw["accesses"]]
    return Seen(
        tuple(
            SeenRun(run_id, at_ms, ok, whole, frozenset(every[int(n)] for n in numbers), under)
            for run_id, at_ms, ok, whole, numbers, under in raw["runs"]
        )
    )


def refused(accesses: Collection[Access]) -> list[Access]:
    """Give what was refused, in order."""
    return sorted(access for access in accesses if not access.allowed)
