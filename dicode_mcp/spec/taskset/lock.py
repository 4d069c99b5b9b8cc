"""``dicode.lock``: the commits at which installed entries, and what they lead to, were shown.

It stands beside the set files of its folder and speaks of each by name. What it names is third
party's: not trusted, and moved by nothing but another lock. Pure: text in, values and text out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, ValidationError

from dicode_mcp.spec import yaml12
from dicode_mcp.spec.base import Findings, Model, Raw, checked
from dicode_mcp.spec.fields import Line
from dicode_mcp.spec.giturl import check_git_url
from dicode_mcp.spec.ids import check_task_id
from dicode_mcp.spec.problems import (
    Problem,
    SpecError,
    in_order,
    problem_at,
    problems_from_validation,
)
from dicode_mcp.spec.taskset.words import scalar
from dicode_mcp.spec.taskset.world import Lock, Remote

LOCK = "dicode.lock"
MAX_BYTES = 4 * 2**20
_MOST_PINS = 4096
_HEAD = """\
# Written by dicode: the commits that installed tasks stay at until update_task moves them.
# Keep this file beside its TaskSet, in version control too. An entry that is taken out of here
# by hand counts as your own: it follows its branch, and nothing of it waits for an approval.
"""

Version = tuple[Literal["branch", "tag", "commit"], str]
"""What a ref asks for, whatever commit that is now."""


@dataclass(frozen=True, slots=True)
class Pin:
    """The commit reviewed for one version of a repository; without branch and tag, itself."""

    url: str
    commit: str
    branch: str | None = None
    tag: str | None = None

    @property
    def version(self) -> Version:
        """What the ref asks for."""
        if self.tag is not None:
            return "tag", self.tag
        return ("branch", self.branch) if self.branch is not None else ("commit", self.commit)


Pins = tuple[Pin, ...]


def version_of(remote: Remote) -> Version:
    """Give what a ref to a repository asks for."""
    if remote.commit is not None:
        return "commit", remote.commit
    return ("tag", remote.tag) if remote.tag is not None else ("branch", remote.branch)


def pin_of(remote: Remote, commit: str) -> Pin:
    """Pin what a ref asks for to a commit. A ref that names a commit is its own pin."""
    kind, name = version_of(remote)
    if kind == "tag":
        return Pin(remote.url, commit, tag=name)
    return Pin(remote.url, commit, branch=name) if kind == "branch" else Pin(remote.url, name)


Vouched = Callable[[str], bool]
"""Tells whether the user allows a URL that somebody else has chosen to lead anywhere."""


def nobodys(url: str) -> bool:
    """Vouch for no URL."""
    return False


def reached(remote: Remote, vouched: Vouched) -> Remote:
    """Give what an installed entry may reach of a repository.

    Somebody else chose its URL, so it leads to the internet alone, unless the user vouches for it
    or has written credentials beside it.
    """
    trusted = remote.trusted and (remote.auth is not None or vouched(remote.url))
    return replace(remote, trusted=trusted)


@dataclass(frozen=True, slots=True)
class SetLock(Lock):
    """The part of a lock that speaks of one set file."""

    pins: Mapping[str, Pins]
    vouched: Vouched = nobodys

    def holds(self, entry: str) -> bool:
        """Tell whether an entry of the set is pinned."""
        return entry in self.pins

    def pinned(self, entry: str, remote: Remote) -> Remote | None:
        """Give the repository at the commit that was reviewed for it; None when none was."""
        pin = found(self.pins.get(entry, ()), remote)
        return None if pin is None else held(remote, pin, self.vouched)


@dataclass(frozen=True, slots=True)
class NoLock(Lock):
    """Stands for a lock that is gone or cannot be read: what it pinned is not followed meanwhile.

    ``keys`` are the entries it pinned when it was last read; None: it may have pinned any.
    """

    why: str
    keys: frozenset[str] | None = None

    @property
    def fault(self) -> str:
        """Say why nothing can be read."""
        return self.why

    def holds(self, entry: str) -> bool:
        """Tell whether an entry was, or may be, pinned."""
        return self.keys is None or entry in self.keys

    def pinned(self, entry: str, remote: Remote) -> Remote | None:
        """Give nothing."""
        return None


def found(pins: Iterable[Pin], remote: Remote) -> Pin | None:
    """Give the pin of what a ref asks for."""
    wanted = remote.url, version_of(remote)
    return next((pin for pin in pins if (pin.url, pin.version) == wanted), None)


def held(remote: Remote, pin: Pin, vouched: Vouched) -> Remote:
    """Give a repository at the commit it is pinned to."""
    return replace(reached(remote, vouched), commit=pin.commit, tag=None)


@dataclass(frozen=True, slots=True)
class LockFile:
    """A whole lock: the pins of each entry, by the set file's name and the entry's key."""

    sets: Mapping[str, Mapping[str, Pins]] = field(default_factory=dict[str, Mapping[str, Pins]])

    def of(self, set_name: str) -> Mapping[str, Pins]:
        """Give the pinned entries of a set file."""
        return self.sets.get(set_name, {})

    def with_entry(self, set_name: str, key: str, pins: Iterable[Pin]) -> LockFile:
        """Give the lock with other pins of an entry."""
        return LockFile({**self.sets, set_name: {**self.of(set_name), key: tuple(pins)}})

    def without(self, set_name: str, key: str) -> LockFile:
        """Give the lock without an entry."""
        rest = {name: pins for name, pins in self.of(set_name).items() if name != key}
        others = {name: pins for name, pins in self.sets.items() if name != set_name}
        return LockFile({**others, set_name: rest} if rest else others)

    def dump(self) -> str:
        """Write it; equal locks give equal text."""
        lines = ["version: 1", "sets:" if any(self.sets.values()) else "sets: {}"]
        for name, entries in sorted(self.sets.items()):
            if entries:
                lines.append(f"  {scalar(name)}:")
            for key, pins in sorted(entries.items()):
                lines.append(f"    {scalar(key)}:")
                lines += [line for pin in sorted(pins, key=_order) for line in _written(pin)]
        return _HEAD + "\n".join(lines) + "\n"


def _order(pin: Pin) -> tuple[str, Version, str]:
    return pin.url, pin.version, pin.commit


def _written(pin: Pin) -> list[str]:
    fields = {"url": pin.url, "branch": pin.branch, "tag": pin.tag, "commit": pin.commit}
    given = [f"{name}: {scalar(value)}" for name, value in fields.items() if value is not None]
    return [f"      {'  ' if index else '- '}{line}" for index, line in enumerate(given)]


class _Pin(Model):
    """A pin as written."""

    url: Annotated[Line, AfterValidator(check_git_url)]
    branch: Line | None = None
    tag: Line | None = None
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want one version."""
        if raw.get("branch") is not None and raw.get("tag") is not None:
            findings.add(("tag",), "stands beside branch", "keep one of the two")


_Name = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,255}$")]
_Key = Annotated[str, AfterValidator(checked(check_task_id))]


class _Lock(Model):
    """A lock as written."""

    version: Literal[1]
    sets: Mapping[_Name, Mapping[_Key, Annotated[tuple[_Pin, ...], Field(max_length=_MOST_PINS)]]]


def read_lock(text: str, file: str) -> LockFile:
    """Read a lock's text. Raises ``SpecError``: a lock that cannot be read whole pins nothing."""
    document = yaml12.load(text, file, max_bytes=MAX_BYTES)
    problems = list(document.problems)
    model = None
    try:
        model = _Lock.read(document.data)
    except ValidationError as error:
        problems += problems_from_validation(error, document.places, file)
    if problems or model is None:
        raise SpecError(in_order(problems))
    lock = LockFile(
        {
            name: {key: tuple(_pin(pin) for pin in pins) for key, pins in entries.items()}
            for name, entries in model.sets.items()
        }
    )
    faults = list(_faults(lock, document.places, file))
    if faults:
        raise SpecError(in_order(faults))
    return lock


def _pin(model: _Pin) -> Pin:
    return Pin(model.url, model.commit, model.branch, model.tag)


def _faults(lock: LockFile, places: Mapping[Any, Any], file: str) -> Iterable[Problem]:
    """Find entries without pins, and versions that are pinned twice."""
    for name, entries in lock.sets.items():
        for key, pins in entries.items():
            path = cast("tuple[str | int, ...]", ("sets", name, key))
            if not pins:
                hint = "call uninstall_task for the entry, or remove it here and in the set"
                yield problem_at(path, "pins nothing", hint, places=places, file=file)
            seen: set[tuple[str, Version]] = set()
            for index, pin in enumerate(pins):
                if (pin.url, pin.version) in seen:
                    what = "pins a version that is pinned already"
                    hint = "keep one of the two"
                    yield problem_at((*path, index), what, hint, places=places, file=file)
                seen.add((pin.url, pin.version))
