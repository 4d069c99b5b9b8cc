"""What ``deno info --json`` tells of a script: its syntax, its imports, and where they stand. Pure.

Asked without npm and remote modules, so it needs no network and tells only of the task's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from dicode_runtimes.deno.flags import Imports

ARGUMENTS = ("info", "--json", "--quiet", "--no-config", "--no-lock", "--no-remote", "--no-npm")
MAX_TEXT = 300
_AT = re.compile(r"at (file://\S+?):(\d+):\d+\s*$")
_MAIN = re.compile(r"\bmain\b")
_MAIN_DEFINED = re.compile(r"^(?:async\s+)?function\s+main\s*\(|^(?:const|let|var)\s+main\s*=")


@dataclass(frozen=True, slots=True)
class External:
    """One import of a package or a remote module: the specifier and where it stands."""

    specifier: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A script and the modules of its own that it imports."""

    problems: tuple[str, ...] = ()
    """Each as ``file:line: what; what to do``."""
    external: tuple[External, ...] = ()
    inside: bool = True
    """Whether every module is a file below the task's folder."""

    @property
    def imports(self) -> Imports:
        """What kinds of module come from elsewhere."""
        npm = any(e.specifier.startswith("npm:") for e in self.external)
        return Imports(npm, any(not e.specifier.startswith("npm:") for e in self.external))


def read_graph(text: str, folder: Path, readable: Sequence[Path]) -> Graph:
    """Read the answer. Raises ``ValueError`` when it is not one.

    ``readable`` are the folders the task may read. Nothing is told of a module elsewhere but its
    path: the server may read what the task may not.
    """
    raw: Any = json.loads(text)
    modules = cast("list[dict[str, Any]]", raw["modules"])
    errors = {str(m["specifier"]): str(m["error"]) for m in modules if m.get("error")}
    reader = _Reader(folder, readable, errors)
    for module in modules:
        reader.take(module)
    return Graph(
        tuple(dict.fromkeys(reader.problems)), tuple(dict.fromkeys(reader.external)), reader.inside
    )


class _Reader:
    def __init__(self, folder: Path, readable: Sequence[Path], errors: Mapping[str, str]) -> None:
        self._folder = folder.resolve()
        self._readable = [path.resolve() for path in readable]
        self._errors = errors
        self.problems: list[str] = []
        self.external: list[External] = []
        self.inside = True

    def take(self, module: Mapping[str, Any]) -> None:
        specifier = str(module["specifier"])
        path = _local(specifier)
        if path is None:
            return
        if not _below(path, [self._folder]):
            self.inside = False
        if not _below(path, self._readable):
            return
        error = self._errors.get(specifier)
        if error is not None and not error.startswith("Module not found"):
            self.problems.append(self._syntax(error, path))
        for dependency in cast("list[dict[str, Any]]", module.get("dependencies") or []):
            self._depend(path, dependency)

    def _depend(self, importer: Path, dependency: Mapping[str, Any]) -> None:
        code: Any = dependency.get("code")
        if not code:
            if dependency.get("type"):
                self._note(importer, dependency["type"], str(dependency["specifier"]))
            return
        file, line = self.shown(importer), _line(code)
        specifier = str(dependency["specifier"])
        if code.get("error"):
            if not dependency.get("isDynamic"):
                self.problems.append(f"{file}:{line}: {_unresolved(specifier, str(code['error']))}")
            return
        self._note(importer, code, specifier)
        target = _local(str(code["specifier"]))
        if target is None or dependency.get("isDynamic"):
            return
        if not _below(target, self._readable):
            self.problems.append(
                f"{file}:{line}: imports {specifier!r}, which lies outside of the task's folder; "
                "move it there, or grant its folder with permissions.fs"
            )
        elif str(code["specifier"]) in self._errors and not target.exists():
            self.problems.append(f"{file}:{line}: imports {specifier!r}, and there is no such file")

    def _note(self, importer: Path, code: Mapping[str, Any], specifier: str) -> None:
        resolved = str(code.get("specifier") or "")
        if resolved.partition(":")[0] in ("npm", "jsr", "http", "https"):
            self.external.append(External(specifier, self.shown(importer), _line(code)))

    def _syntax(self, error: str, path: Path) -> str:
        # The first line alone: what follows is an excerpt of the file.
        what = error.splitlines()[0].strip()[:MAX_TEXT]
        found = _AT.search(error.strip())
        return f"{self.shown(path)}:{found.group(2)}: {what}" if found else f"{path.name}: {what}"

    def shown(self, path: Path) -> str:
        resolved = path.resolve()
        return (
            str(resolved.relative_to(self._folder)) if _below(path, [self._folder]) else str(path)
        )


def _local(specifier: str) -> Path | None:
    parts = urlsplit(specifier)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _below(path: Path, folders: Sequence[Path]) -> bool:
    resolved = path.resolve()
    return any(resolved == folder or folder in resolved.parents for folder in folders)


def _line(code: Mapping[str, Any]) -> int:
    return int(code["span"]["start"]["line"]) + 1


def _unresolved(specifier: str, error: str) -> str:
    if "not a dependency" in error:
        return f'cannot find {specifier!r}; write "npm:{specifier}" or "jsr:{specifier}"'
    return error.splitlines()[0][:MAX_TEXT]


def unused_main(source: str, name: str) -> str | None:
    """Say that a script has a ``main`` that nobody would call, if so.

    A mention of it anywhere else, even in a comment, counts as a use.
    """
    for number, line in enumerate(source.splitlines(), 1):
        if _MAIN_DEFINED.match(line):
            if len(_MAIN.findall(source)) == 1:
                return (
                    f"{name}:{number}: main is neither exported nor called, so nothing would run; "
                    "write `export default async function main(…)`"
                )
            return _guarded_main(source, name)
    return None


def _guarded_main(source: str, name: str) -> str | None:
    if "export " in source:
        return None
    for number, line in _lines_with(source, "import.meta.main"):
        if not line.lstrip().startswith(("//", "*")):
            return (
                f"{name}:{number}: import.meta.main is false in a task, so main would not run; "
                "write `export default async function main(…)`"
            )
    return None


def _lines_with(source: str, text: str) -> Iterator[tuple[int, str]]:
    return ((n, line) for n, line in enumerate(source.splitlines(), 1) if text in line)
