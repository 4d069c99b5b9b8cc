"""A folder with ``task.yaml`` becomes a ``Task``: read, merged, expanded, validated, put in place.

The steps are apart, so that what composes tasks can merge raw documents before validation:
``read`` gives a document, ``build`` makes a task of one. Knows nothing of sources or the registry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from dicode_mcp.spec import yaml12
from dicode_mcp.spec.digest import DigestCache, folder_digest
from dicode_mcp.spec.files import read_text
from dicode_mcp.spec.grants import Ground, absolute, refusal
from dicode_mcp.spec.ids import check_task_id
from dicode_mcp.spec.manifest import render_manifest, spec_json
from dicode_mcp.spec.model import RUNTIMES, Task, TaskSpec
from dicode_mcp.spec.problems import (
    KeyPath,
    Problem,
    SpecError,
    in_order,
    nearest,
    problem_at,
    problems_from_validation,
)
from dicode_mcp.spec.templates import NO_ENVIRONMENT, expand_manifest, usable_environ
from dicode_mcp.spec.texts import with_texts

MANIFEST = "task.yaml"
Change = Callable[[yaml12.Document], yaml12.Document]
"""What is laid over a manifest between reading and validating it."""
MAX_CODE_BYTES = 1024 * 1024
"""A larger script is not kept in memory."""
_ENCODING = re.compile(rb"(?:[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*([-\w.]+)")

WELL_KNOWN_SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "python": ("task.py",),
    "deno": ("task.ts", "task.js"),
    "docker": (),
    "podman": (),
}


@dataclass(frozen=True, slots=True)
class _Where:
    """The place a manifest is read for."""

    folder: Path
    source_root: Path
    task_set_dir: Path | None


def parse_document(text: str, file: str = MANIFEST) -> yaml12.Document:
    """Read a manifest's text; values that are text in the model are as they were written.

    Raises ``SpecError`` when it is empty or cannot be read to its end.
    """
    document = yaml12.load(text, file)
    if document.data is None and not document.problems:
        raise SpecError([Problem(file, 0, 0, "", "is empty", "write name, runtime and trigger")])
    return replace(document, data=with_texts(document))


def validate_text(
    text: str, filename: str = MANIFEST, runtimes: Collection[str] = RUNTIMES
) -> list[Problem]:
    """Give every problem of a manifest's text that can be told from the text alone."""
    try:
        document = parse_document(text, filename)
        _validated(document, document.data, runtimes)
    except SpecError as error:
        return list(error.problems)
    return []


def _validated(document: yaml12.Document, data: Any, runtimes: Collection[str]) -> TaskSpec:
    """Validate raw data; problems of the text and of its meaning are told together."""
    _require_task(document, data)
    found: list[Problem] = list(document.problems)
    spec = None
    try:
        spec = TaskSpec.read(data, context={"runtimes": runtimes})
    except ValidationError as error:
        known = {(problem.file, problem.line) for problem in document.problems}
        meant = problems_from_validation(error, document.places, document.file)
        found += [p for p in meant if (p.file, p.line) not in known or not p.line]
    if found or spec is None:
        raise SpecError(in_order(found))
    return spec


def _require_task(document: yaml12.Document, data: Any) -> None:
    """Tell a TaskSet from a task before each of its keys is called unknown."""
    if isinstance(data, dict) and cast(dict[str, Any], data).get("kind") == "TaskSet":
        message = "a task's manifest cannot be a 'TaskSet'"
        hint = "allowed: Task; name the file of a set taskset.yaml"
        raise SpecError(
            [problem_at(("kind",), message, hint, places=document.places, file=document.file)]
        )


class TaskLoader:
    """Loads tasks for one server.

    ``runtimes`` maps each runtime's name to the script names it looks for. ``withheld`` are
    variables that hold the server's own credentials: no template shows and no task gets them. It
    is looked at for each task, since sources may name further ones while the server runs.
    ``guarded`` are files of the server that no task may be granted.
    """

    def __init__(
        self,
        *,
        runtimes: Mapping[str, tuple[str, ...]],
        environ: Mapping[str, str],
        home: Path,
        data_dir: Path,
        config_dir: Path,
        withheld: Collection[str] = (),
        cache: DigestCache | None = None,
        guarded: tuple[Path, ...] = (),
    ) -> None:
        self._guarded = guarded
        self._scripts = {**WELL_KNOWN_SCRIPTS, **runtimes}
        self._withheld = withheld
        self._host = environ
        self._home = home
        self._data_dir = data_dir
        self._config_dir = config_dir
        self._cache = cache

    def load(
        self,
        folder: Path,
        *,
        task_id: str,
        source: str,
        source_root: Path,
        revision: str | None = None,
        task_set_dir: Path | None = None,
        change: Change | None = None,
    ) -> Task:
        """Load the task of a folder. Raises ``SpecError`` with every problem of its manifest."""
        document = self.read(folder)
        return self.build(
            change(document) if change else document,
            folder,
            task_id=task_id,
            source=source,
            source_root=source_root,
            revision=revision,
            task_set_dir=task_set_dir,
        )

    def read(self, folder: Path) -> yaml12.Document:
        """Read a folder's manifest as plain data with places, nothing expanded or validated."""
        path = folder / MANIFEST
        if not path.exists() and (folder / "task.yml").exists():
            raise SpecError([Problem("task.yml", 0, 0, "", "is not read", "name it task.yaml")])
        text = read_text(path, MANIFEST, max_bytes=yaml12.MAX_BYTES)
        return parse_document(text)

    def validate_text(self, text: str, filename: str = MANIFEST) -> list[Problem]:
        """Give every problem of a manifest's text, by this server's runtimes."""
        return validate_text(text, filename, self._scripts)

    def build(
        self,
        document: yaml12.Document,
        folder: Path,
        *,
        task_id: str,
        source: str,
        source_root: Path,
        revision: str | None = None,
        task_set_dir: Path | None = None,
    ) -> Task:
        """Make a task of a document (as read, or merged). Raises ``SpecError``."""
        _check_id(task_id, document.file)
        where = _Where(folder, source_root, task_set_dir)
        spec, shown = self._specs(document, where)
        spec, shown = self._in_place(document, spec, shown, where)
        script = self._script(document, spec, folder)
        return Task(
            id=task_id,
            spec=spec,
            folder=folder,
            script=script,
            digest=folder_digest(folder, _lasting(spec_json(spec), revision, where), self._cache),
            source=source,
            revision=revision,
            code=_code(script),
            manifest=render_manifest(shown),
        )

    def _specs(self, document: yaml12.Document, where: _Where) -> tuple[TaskSpec, TaskSpec]:
        """Give the spec in force, and the one to show: without values of host variables."""
        data = document.data
        if not isinstance(data, dict):
            spec = _validated(document, data, self._scripts)
            return spec, spec
        raw = cast(dict[str, Any], data)
        shown = expand_manifest(raw, self._builtins(where), NO_ENVIRONMENT)
        environ = usable_environ(self._host, self._withheld)
        full = expand_manifest(raw, self._builtins(where), environ)
        spec = _validated(document, full, self._scripts)
        return spec, spec if full == shown else _validated(document, shown, self._scripts)

    def _builtins(self, where: _Where) -> dict[str, str]:
        out = {
            "TASK_DIR": str(where.folder),
            "HOME": str(self._home),
            "SOURCE_ROOT": str(where.source_root),
            "SKILLS_DIR": str(where.source_root / "skills"),
            "DATADIR": str(self._data_dir),
            "CONFIGDIR": str(self._config_dir),
        }
        if where.task_set_dir is not None:
            out["TASK_SET_DIR"] = str(where.task_set_dir)
        return out

    def _in_place(
        self, document: yaml12.Document, spec: TaskSpec, shown: TaskSpec, where: _Where
    ) -> tuple[TaskSpec, TaskSpec]:
        """Make paths absolute; refuse what would open the server to the task."""
        ground = Ground(
            where.folder,
            self._home,
            self._data_dir,
            tuple(p for p in (where.folder, where.source_root, where.task_set_dir) if p),
            self._guarded,
        )
        found = [*_fs_problems(document, spec, ground), *_volume_problems(document, spec, ground)]
        found += self._env_problems(document, spec)
        if found:
            raise SpecError(in_order(found))
        return _with_absolute_paths(spec, ground), _with_absolute_paths(shown, ground)

    def _env_problems(self, document: yaml12.Document, spec: TaskSpec) -> Iterable[Problem]:
        for index, entry in enumerate(spec.permissions.env):
            own = entry.key is not None and entry.key.startswith("DICODE_")
            if entry.source == "host" and (own or entry.key in self._withheld):
                yield problem_at(
                    ("permissions", "env", index),
                    "asks for a variable that holds the server's own credentials or settings",
                    "store the value as a secret and use {name, secret: key}",
                    places=document.places,
                    file=document.file,
                )

    def _script(self, document: yaml12.Document, spec: TaskSpec, folder: Path) -> Path | None:
        names = self._scripts[spec.runtime]
        if not names:
            return None
        for name in names:
            path = folder / name
            if path.is_file() and not path.is_symlink():
                return path
        message, hint = _missing_script(folder, names)
        where: KeyPath = ("runtime",)
        raise SpecError(
            [problem_at(where, message, hint, places=document.places, file=document.file)]
        )


def _lasting(text: str, revision: str | None, where: _Where) -> str:
    """Take the paths of a checkout out of a spec: the next commit has others, for the same task."""
    if revision is None:
        return text
    places = {"TASK_DIR": where.folder, "SOURCE_ROOT": where.source_root}
    for name, place in places.items():
        text = text.replace(str(place), f"${{{name}}}")
    return text


def _check_id(task_id: str, file: str) -> None:
    try:
        check_task_id(task_id)
    except ValueError as error:
        message = f"the task's id, made of folder names, {error}"
        raise SpecError([Problem(file, 0, 0, "", message, "rename the folder")]) from None


def _missing_script(folder: Path, names: tuple[str, ...]) -> tuple[str, str]:
    wanted = " or ".join(names)
    if any((folder / name).is_symlink() for name in names):
        return f"the script {wanted} is a symbolic link", "put the file itself in the folder"
    others = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)
    match = next((m for m in (nearest(name, others) for name in names) if m), None)
    hint = f"add {wanted} beside task.yaml"
    return f"the script is missing: {wanted}", hint + (
        f"; found '{match}': is that the script?" if match else ""
    )


def _fs_problems(document: yaml12.Document, spec: TaskSpec, ground: Ground) -> Iterable[Problem]:
    for index, grant in enumerate(spec.permissions.fs):
        found = refusal(absolute(grant.path, ground), grant.permission, ground)
        if found:
            where: KeyPath = ("permissions", "fs", index, "path")
            yield problem_at(where, *found, places=document.places, file=document.file)


def _volume_problems(
    document: yaml12.Document, spec: TaskSpec, ground: Ground
) -> Iterable[Problem]:
    if spec.docker is None:
        return
    section = "docker" if ("docker",) in document.places else "container"
    for index, volume in enumerate(spec.docker.volumes):
        host, _, rest = volume.partition(":")
        if not host.startswith(("/", ".", "~")):
            continue
        read_only = "ro" in rest.partition(":")[2].split(",")
        found = refusal(absolute(host, ground), "r" if read_only else "rw", ground)
        if found:
            where: KeyPath = (section, "volumes", index)
            yield problem_at(where, *found, places=document.places, file=document.file)


def _with_absolute_paths(spec: TaskSpec, ground: Ground) -> TaskSpec:
    if not spec.permissions.fs:
        return spec
    grants = tuple(
        grant.model_copy(update={"path": absolute(grant.path, ground)})
        for grant in spec.permissions.fs
    )
    permissions = spec.permissions.model_copy(update={"fs": grants})
    return spec.model_copy(update={"permissions": permissions})


def _code(script: Path | None) -> str | None:
    """Read a script's text, unless it is large or written in another encoding than UTF-8."""
    if script is None:
        return None
    try:
        with script.open("rb") as file:
            data = file.read(MAX_CODE_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError):
        return None
    other = _ENCODING.match(data)
    if len(data) > MAX_CODE_BYTES or (other and other[1].lower() not in (b"utf-8", b"utf8")):
        return None
    return text
