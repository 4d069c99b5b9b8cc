"""A TaskSet file as frozen values: what it names, with the faults of each entry apart.

A fault in one entry is that entry's; a fault around the entries is the file's. Reads text, follows
no reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from dicode_mcp.spec import yaml12
from dicode_mcp.spec.base import Findings, Model, Raw, checked
from dicode_mcp.spec.fields import Flag, Line, PositiveDuration, TaskRef
from dicode_mcp.spec.giturl import check_git_url
from dicode_mcp.spec.ids import check_task_id, check_variable
from dicode_mcp.spec.problems import (
    Place,
    Problem,
    SpecError,
    in_order,
    problem_at,
    problems_from_validation,
    render_path,
)
from dicode_mcp.spec.taskset.parts import children, moved, part
from dicode_mcp.spec.taskset.patch import NOTHING, Patch, read_patch
from dicode_mcp.spec.yaml12 import Document

KIND = "TaskSet"
MAX_BYTES = 16 * 2**20
"""A set names thousands of tasks; a manifest, one."""
_ENTRIES = "spec.entries"
_GIT_ONLY = ("branch", "tag", "commit", "poll_interval", "auth")
_VERSIONS = ("branch", "tag", "commit")


class RefAuth(Model):
    """How to prove who is asking: the names of a variable and a file."""

    token_env: Annotated[str, AfterValidator(checked(check_variable))] | None = None
    ssh_key: Annotated[Line, Field(pattern="^[/~]")] | None = None
    username: Line | None = None
    host_keys: Literal["strict", "accept-new"] = "strict"
    known_hosts: Annotated[Line, Field(pattern="^[/~]")] | None = None


class Ref(Model):
    """Where an entry's task or set is. Without ``url``, ``path`` is relative to the set's file."""

    path: Line | None = None
    url: Annotated[Line, AfterValidator(check_git_url)] | None = None
    branch: Line | None = None
    tag: Line | None = None
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    poll_interval: PositiveDuration = 30.0
    """Seconds."""
    auth: RefAuth | None = None
    dev_ref: Ref | None = None

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want a place, and the keys of a repository only beside a URL."""
        if raw.get("path") is None and raw.get("url") is None:
            findings.add((), "needs a path or a url", "add 'path: FOLDER' or 'url: …'")
        if raw.get("url") is None:
            for key in _GIT_ONLY:
                if raw.get(key) is not None:
                    findings.add((key,), "belongs to a ref with a url", "remove it or add 'url: …'")
        chosen = [key for key in _VERSIONS if raw.get(key) is not None]
        if len(chosen) > 1:
            findings.add((chosen[1],), f"stands beside {chosen[0]}", "keep one of the two")
        inner = raw.get("dev_ref")
        if isinstance(inner, Mapping) and "dev_ref" in inner:
            findings.add(("dev_ref", "dev_ref"), "has no meaning inside a dev_ref", "remove it")


def _hosts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class _Entry(Model):
    """One entry, shallow: its overrides and its inline manifest are read apart."""

    ref: Ref | None = None
    inline: Any = None
    dev_ref: Ref | None = None
    overrides: Any = None
    enabled: Flag | None = None
    hosts: Annotated[tuple[Line, ...], BeforeValidator(_hosts)] | None = None

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want one origin, and each switch once."""
        given = [key for key in ("ref", "inline") if raw.get(key) is not None]
        if len(given) != 1:
            what = "has both ref and inline" if given else "needs a ref or an inline task"
            findings.add((), what, "add 'ref: {path: FOLDER}'" if not given else "keep one of them")
        ref = raw.get("ref")
        if raw.get("dev_ref") is not None:
            if isinstance(ref, Mapping) and cast(Raw, ref).get("dev_ref") is not None:
                findings.add(("dev_ref",), "is there twice: also in ref", "keep one of the two")
        overrides = raw.get("overrides")
        if raw.get("enabled") is not None and isinstance(overrides, Mapping):
            if cast(Raw, overrides).get("enabled") is not None:
                where = ("overrides", "enabled")
                findings.add(where, "is there twice: also beside overrides", "keep one of the two")
        hosts = raw.get("hosts")
        if isinstance(hosts, list) and not hosts:
            findings.add(("hosts",), "is empty: no server would take it", "use 'enabled: false'")


class _Metadata(Model):
    """What a set says of itself."""

    name: TaskRef | None = None
    description: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)


class _Spec(Model):
    """What a set holds, shallow."""

    defaults: Any = None
    entries: Any = None


class _TaskSet(Model):
    """A whole file, shallow."""

    api_version: Literal["dicode/v1"] = Field(default="dicode/v1", alias="apiVersion")
    kind: Literal["TaskSet"]
    metadata: _Metadata | None = None
    spec: _Spec | None = None


@dataclass(frozen=True, slots=True)
class EntryDoc:
    """One entry. ``problems``: it cannot be used. ``inline`` is a manifest with its ``script``.

    ``overrides.enabled`` holds the entry's own ``enabled`` too: they are one switch.
    """

    key: str
    file: str
    place: Place | None = field(default=None, compare=False)
    ref: Ref | None = None
    dev_ref: Ref | None = None
    inline: Document | None = field(default=None, compare=False)
    overrides: Patch = NOTHING
    hosts: tuple[str, ...] | None = None
    problems: tuple[Problem, ...] = ()

    def problem(self, message: str, hint: str = "") -> Problem:
        """Make a problem of the entry as a whole."""
        line, column = (self.place.line, self.place.column) if self.place else (0, 0)
        return Problem(self.file, line, column, f"{_ENTRIES}.{self.key}", message, hint)


@dataclass(frozen=True, slots=True)
class TaskSetDoc:
    """A TaskSet file. ``file`` is what problems call it."""

    file: str
    name: str | None = None
    defaults: Patch = NOTHING
    entries: tuple[EntryDoc, ...] = ()


def read_set(text: str, file: str) -> TaskSetDoc:
    """Read a TaskSet's text.

    Raises ``SpecError`` when the file as a whole cannot be used; faults of single entries are in
    the entries.
    """
    document = yaml12.load(text, file, max_bytes=MAX_BYTES)
    if document.data is None and not document.problems:
        raise SpecError([Problem(file, 0, 0, "", "is empty", "write kind: TaskSet and its spec")])
    return set_of(document)


def set_of(document: Document) -> TaskSetDoc:
    """Read a TaskSet from a document. Raises ``SpecError`` like ``read_set``."""
    found, of_entries = _sorted_problems(document)
    model = None
    try:
        model = _TaskSet.read(document.data)
    except ValidationError as error:
        known = {problem.line for problem in found}
        meant = problems_from_validation(error, document.places, document.file)
        found += [problem for problem in meant if problem.line not in known or not problem.line]
    if found or model is None:
        raise SpecError(in_order(found))
    spec = part(document, "spec")
    return TaskSetDoc(
        document.file,
        model.metadata.name if model.metadata else None,
        _patch(part(spec, "defaults"), "spec.defaults", targets=False),
        _entries(spec, of_entries),
    )


def inline_set(defaults: Document, entries: Document) -> TaskSetDoc:
    """Read a set whose two parts stand in another file. Raises ``SpecError``."""
    return TaskSetDoc(
        entries.file,
        None,
        _patch(defaults, "spec.defaults", targets=False),
        _entries(Document(entries.file, {"entries": entries.data}, _under(entries)), {}),
    )


def _under(entries: Document) -> dict[Any, Place]:
    return {("entries", *path): place for path, place in entries.places.items()}


def _sorted_problems(document: Document) -> tuple[list[Problem], dict[str, list[Problem]]]:
    """Part the text's faults in the file's own and those of single entries."""
    keys = _keys(document)
    prefixes = {render_path(("spec", "entries", key)): key for key in keys}
    own: list[Problem] = []
    of_entries: dict[str, list[Problem]] = {}
    for problem in document.problems:
        prefix = max((p for p in prefixes if _is_in(problem.path, p)), key=len, default=None)
        if prefix is None:
            own.append(problem)
        else:
            of_entries.setdefault(prefixes[prefix], []).append(problem)
    return own, of_entries


def _keys(document: Document) -> list[str]:
    entries = part(Document("", document.data), "spec", "entries").data
    return list(cast("Mapping[str, Any]", entries)) if isinstance(entries, Mapping) else []


def _is_in(path: str, prefix: str) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", ".", "[")


def _patch(document: Document, path: str, *, targets: bool) -> Patch:
    try:
        return read_patch(document, targets=targets)
    except SpecError as error:
        raise SpecError([moved(problem, path) for problem in error.problems]) from None


def _entries(spec: Document, problems: Mapping[str, list[Problem]]) -> tuple[EntryDoc, ...]:
    entries = part(spec, "entries")
    if entries.data is None:
        return ()
    if not isinstance(entries.data, Mapping):
        problem = problem_at((), "must be a map", places=entries.places, file=spec.file)
        raise SpecError([moved(problem, _ENTRIES)])
    return tuple(
        _entry(key, document, problems.get(key, [])) for key, document in children(entries).items()
    )


def _entry(key: str, document: Document, known: list[Problem]) -> EntryDoc:
    place = document.places.get(())
    found = [*known, *_key_problems(key, document)]
    prefix = f"{_ENTRIES}.{key}"
    model, overrides = None, NOTHING
    try:
        model = _Entry.read(document.data)
    except ValidationError as error:
        meant = problems_from_validation(error, document.places, document.file)
        found += [moved(problem, prefix) for problem in meant]
    try:
        overrides = _patch(part(document, "overrides"), f"{prefix}.overrides", targets=True)
    except SpecError as error:
        found += error.problems
    if found or model is None:
        return EntryDoc(key, document.file, place, problems=tuple(in_order(found)))
    return EntryDoc(
        key,
        document.file,
        place,
        model.ref,
        model.dev_ref or (model.ref.dev_ref if model.ref else None),
        part(document, "inline") if model.inline is not None else None,
        replace(overrides, enabled=model.enabled) if model.enabled is not None else overrides,
        model.hosts,
    )


def _key_problems(key: str, document: Document) -> list[Problem]:
    try:
        check_task_id(key)
    except ValueError as error:
        found = problem_at((), str(error), "", places=document.places, file=document.file)
        return [moved(found, f"{_ENTRIES}.{key}")]
    return []
