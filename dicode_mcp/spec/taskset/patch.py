"""What a set says about a task that is written elsewhere: ``defaults`` and ``overrides``.

A patch is kept in the manifest's own form (``env`` stands under ``permissions``), with the place
of everything. Whether the values fit is seen when they are merged into a manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from dicode_mcp.spec.model import TaskSpec
from dicode_mcp.spec.permissions import Permissions
from dicode_mcp.spec.problems import (
    KeyPath,
    Place,
    Problem,
    SpecError,
    choices,
    describe,
    problem_at,
)
from dicode_mcp.spec.taskset.parts import children, moved
from dicode_mcp.spec.texts import with_texts
from dicode_mcp.spec.yaml12 import Document

GRANTS = tuple(Permissions.keys())
"""What may stand at the top of a patch instead of under ``permissions``."""
_FIXED = {
    "apiVersion": "belongs to the task's own file",
    "kind": "belongs to the task's own file",
    "script": "cannot be overridden: a set changes what a task is given, not what it does",
}
FIELDS = tuple(key for key in (*TaskSpec.keys(), *GRANTS) if key not in _FIXED)
"""What defaults and overrides may say."""
_LISTS = frozenset({"env", "fs", "net", "run", "sys", "tags", "runs_on"})
_MAPS = frozenset(
    {
        *("permissions", "dicode", "trigger", "docker", "container", "retry", "concurrency"),
        *("resources", "mcp", "notify", "output_schema", "provider", "budget"),
        *("run_inputs", "auto_fix", "retention", "api"),
    }
)
_SWITCH = "enabled"
_TARGETS = "entries"


@dataclass(frozen=True, slots=True)
class Patch:
    """Changes to a manifest, or to each of a set. Lines are not part of what makes two equal.

    ``entries`` are patches for single entries of the set it is for, in order, with their key.
    """

    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    places: Mapping[KeyPath, Place] = field(
        default_factory=dict[KeyPath, Place], compare=False, repr=False
    )
    enabled: bool | None = None
    entries: tuple[tuple[str, Patch], ...] = ()

    @property
    def place(self) -> Place | None:
        """Where it stands."""
        return self.places.get(())


NOTHING = Patch()


def read_patch(document: Document, *, targets: bool) -> Patch:
    """Read ``defaults`` or ``overrides``; ``targets``: ``entries`` may be in it.

    Raises ``SpecError`` with every fault that can be told without a manifest.
    """
    reader = _Reader(document, targets)
    patch = reader.read()
    if reader.problems:
        raise SpecError(reader.problems)
    return patch


class _Reader:
    def __init__(self, document: Document, targets: bool) -> None:
        self._document = document
        self._targets = targets
        self.problems: list[Problem] = []

    def read(self) -> Patch:
        data = with_texts(self._document)
        if data is None:
            return Patch(places=self._document.places)
        if not isinstance(data, Mapping):
            self._tell((), f"must be a map, found {describe(data)}")
            return NOTHING
        raw = dict(cast("Mapping[str, Any]", data))
        self._check_keys(raw)
        self._check_shapes(raw)
        self._check_names(raw)
        if self.problems:
            return NOTHING
        enabled, entries = self._enabled(raw), self._entries(raw)
        return Patch(_manifest_form(raw), self._places(raw), enabled, entries)

    def _check_keys(self, raw: Mapping[str, Any]) -> None:
        known = (*FIELDS, _SWITCH, *((_TARGETS,) if self._targets else ()))
        for key in raw:
            if key in _FIXED:
                self._tell((key,), _FIXED[key], "remove it, or give the entry another ref")
            elif key == _TARGETS and not self._targets:
                self._tell(
                    (key,), "has no place in defaults", "write it under an entry's overrides"
                )
            elif key not in known:
                self._tell((key,), "unknown key", choices(key, known))
        if "docker" in raw and "container" in raw:
            self._tell(("container",), "is another name of 'docker'", "keep one of the two")

    def _check_shapes(self, raw: Mapping[str, Any]) -> None:
        for path, value in _shaped(raw):
            key = path[-1]
            if value is None:
                continue
            if key in _LISTS and not isinstance(value, list):
                self._tell(path, f"must be a list, found {describe(value, path)}")
            if key in _MAPS and not isinstance(value, Mapping):
                self._tell(path, f"must be a map, found {describe(value, path)}")
            if key == "params" and not isinstance(value, (list, Mapping)):
                self._tell(path, "must be a map of 'name: default'")
        for key in ("docker", "container"):
            container = raw.get(key)
            if isinstance(container, Mapping) and "build" in container:
                self._tell((key, "build"), "cannot be overridden", "override 'image' instead")
        permissions = raw.get("permissions")
        if isinstance(permissions, Mapping):
            self._check_permissions(raw, cast("Mapping[str, Any]", permissions))

    def _check_permissions(self, raw: Mapping[str, Any], inner: Mapping[str, Any]) -> None:
        for key in inner:
            if key not in GRANTS:
                self._tell(("permissions", key), "unknown key", choices(key, GRANTS))
            elif key in raw:
                where = ("permissions", key)
                self._tell(where, f"is there twice: also as '{key}'", "keep one of the two")

    def _check_names(self, raw: Mapping[str, Any]) -> None:
        """Refuse a name that is listed twice: merging would let one of them disappear."""
        lists: list[tuple[KeyPath, Any]] = [(("env",), raw.get("env"))]
        permissions = raw.get("permissions")
        if isinstance(permissions, Mapping):
            inner = cast("Mapping[str, Any]", permissions)
            lists.append((("permissions", "env"), inner.get("env")))
        for path, items in lists:
            self._check_once(path, items, env_name)
        self._check_once(("params",), raw.get("params"), param_name)

    def _check_once(self, path: KeyPath, items: Any, name_of: Any) -> None:
        seen: set[str] = set()
        for index, item in enumerate(cast("list[Any]", items) if isinstance(items, list) else ()):
            name = name_of(item)
            if name is not None and name in seen:
                self._tell((*path, index), f"'{name}' is there twice", "keep one of the two")
            seen.add(name or "")

    def _enabled(self, raw: dict[str, Any]) -> bool | None:
        value = raw.pop(_SWITCH, None)
        if value is not None and not isinstance(value, bool):
            self._tell((_SWITCH,), f"must be true or false, found {describe(value)}")
            return None
        return value

    def _entries(self, raw: dict[str, Any]) -> tuple[tuple[str, Patch], ...]:
        value = raw.pop(_TARGETS, None)
        if value is None:
            return ()
        if not isinstance(value, Mapping):
            self._tell((_TARGETS,), f"must be a map of entries, found {describe(value)}")
            return ()
        found: list[tuple[str, Patch]] = []
        for key, document in children(self._document, _TARGETS).items():
            reader = _Reader(document, targets=True)
            found.append((key, reader.read()))
            self.problems += [moved(problem, f"{_TARGETS}.{key}") for problem in reader.problems]
        return tuple(found)

    def _places(self, raw: Mapping[str, Any]) -> dict[KeyPath, Place]:
        """Give the places by the paths of the manifest's own form."""
        out: dict[KeyPath, Place] = {}
        for path, place in self._document.places.items():
            if path and path[0] == _TARGETS:
                continue
            out[("permissions", *path) if path and path[0] in GRANTS else path] = place
        if any(key in raw for key in GRANTS) and ("permissions",) not in out:
            first = next(key for key in raw if key in GRANTS)
            out[("permissions",)] = self._document.places[(first,)]
        return params_as_map(raw.get("params"), out)[1]

    def _tell(self, path: KeyPath, message: str, hint: str = "") -> None:
        self.problems.append(
            problem_at(path, message, hint, places=self._document.places, file=self._document.file)
        )


def _shaped(raw: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in raw.items():
        yield (key,), value
    permissions = raw.get("permissions")
    if isinstance(permissions, Mapping):
        for key, value in cast("Mapping[str, Any]", permissions).items():
            yield ("permissions", key), value


def _manifest_form(raw: Mapping[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in raw.items() if key not in GRANTS}
    grants = {key: raw[key] for key in GRANTS if key in raw}
    if grants:
        # ``permissions: null`` beside grants: nothing of the task's own stays but these
        given = cast("Mapping[str, Any] | None", out.get("permissions", {}))
        base: Mapping[str, Any] = dict.fromkeys(GRANTS) if given is None else given
        out["permissions"] = {**base, **grants}
    if isinstance(out.get("params"), list):
        out["params"] = params_as_map(out["params"], {})[0]
    return out


def env_name(entry: Any) -> str | None:
    """Give the name of an entry of ``env``, when it has one."""
    if isinstance(entry, str):
        return entry.partition("=")[0]
    name = cast("Mapping[str, Any]", entry).get("name") if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) else None


def param_name(item: Any) -> str | None:
    """Give the name of an item of a list of parameters, when it has one."""
    if not isinstance(item, Mapping):
        return None
    fields = cast("Mapping[str, Any]", item)
    if "name" in fields:
        return fields["name"] if isinstance(fields["name"], str) else None
    return next(iter(fields)) if len(fields) == 1 else None


def params_as_map(params: Any, places: Mapping[KeyPath, Place]) -> tuple[Any, dict[KeyPath, Place]]:
    """Give ``params`` in the form of a map, and a document's places by the paths of that form.

    What is no list of parameters is given as it is: its faults are told by who validates.
    """
    items = cast("Sequence[Any]", params) if isinstance(params, list) else ()
    names = [param_name(item) for item in items]
    if not names or None in names or len(set(names)) != len(names):
        return cast(Any, params), dict(places)
    out: dict[str, Any] = {}
    short: set[int] = set()
    for index, (name, item) in enumerate(zip(cast("list[str]", names), items, strict=True)):
        if "name" in item:
            out[name] = {key: value for key, value in item.items() if key != "name"}
        else:
            out[name] = item[name]
            short.add(index)
    placed: dict[KeyPath, Place] = {}
    for path, place in places.items():
        if len(path) < 2 or path[0] != "params" or not isinstance(path[1], int):
            placed[path] = place
            continue
        rest = path[3:] if path[1] in short and len(path) > 2 else path[2:]
        if rest != ("name",):
            placed.setdefault(("params", cast(str, names[path[1]]), *rest), place)
    return out, placed
