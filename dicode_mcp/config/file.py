"""Finding and reading ``dicode.yaml``: the search order, and paths made absolute."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from dicode_mcp.config.model import Config
from dicode_mcp.errors import Code
from dicode_mcp.spec import yaml12
from dicode_mcp.spec.base import Raw
from dicode_mcp.spec.files import read_text
from dicode_mcp.spec.problems import Problem, SpecError, in_order, problems_from_validation
from dicode_mcp.spec.taskset.documents import TaskSetDoc, inline_set
from dicode_mcp.spec.taskset.parts import part
from dicode_mcp.spec.templates import NO_ENVIRONMENT, expand

CONFIG_FILE = "dicode.yaml"
_PATHS = (".", "/", "~", "${")
"""What a registry begins with that is a folder and no URL."""


def load_config(path: Path | None, *, environ: Mapping[str, str], cwd: Path, home: Path) -> Config:
    """Find and read the configuration.

    In order: ``path`` (``--config``), ``$DICODE_CONFIG``, ``./dicode.yaml``,
    ``~/.dicode/dicode.yaml``; with none, built-in values and ``./tasks`` or ``~/dicode-tasks``
    as a local source. Raises ``SpecError`` with code INVALID_CONFIG.
    """
    file = find_config(path, environ=environ, cwd=cwd, home=home)
    if file is None:
        return _built_in(environ, cwd, home)
    name = _shown_name(file, cwd)
    try:
        text = read_text(file, name, max_bytes=yaml12.MAX_BYTES, follow_links=True)
        return read_config(text, name, file=file, environ=environ, home=home)
    except SpecError as error:
        raise SpecError(error.problems, Code.INVALID_CONFIG) from None


def find_config(
    path: Path | None, *, environ: Mapping[str, str], cwd: Path, home: Path
) -> Path | None:
    """Give the file to read; one that was named is given even when it is missing."""
    named = path or (Path(environ["DICODE_CONFIG"]) if environ.get("DICODE_CONFIG") else None)
    if named is not None:
        return cwd / _with_home(str(named), home)
    candidates = (cwd / CONFIG_FILE, home / ".dicode" / CONFIG_FILE)
    return next((file for file in candidates if file.exists()), None)


def _shown_name(file: Path, cwd: Path) -> str:
    return str(file.relative_to(cwd)) if file.is_relative_to(cwd) else str(file)


def _built_in(environ: Mapping[str, str], cwd: Path, home: Path) -> Config:
    folders = (cwd / "tasks", home / "dicode-tasks")
    found = next((folder for folder in folders if folder.is_dir()), None)
    # the id of a plain folder's task is its own name: a source nobody named adds nothing to it
    sources = [{"type": "local", "path": str(found)}] if found else []
    return _validated({"sources": sources}, yaml12.Document(CONFIG_FILE, {}), environ, cwd, home)


def read_config(
    text: str, name: str, *, file: Path, environ: Mapping[str, str], home: Path
) -> Config:
    """Read a configuration's text. Raises ``SpecError``; ``name`` is what problems call it."""
    document = yaml12.load(text, name)
    data: Any = {} if document.data is None else document.data
    config = _validated(data, document, environ, file.parent, home)
    overrides = part(document, "bundled", "overrides") if config.bundled.overrides else None
    return config.read_from(file, _entries(document, config, file.parent, home), overrides)


def _entries(
    document: yaml12.Document, config: Config, base: Path, home: Path
) -> TaskSetDoc | None:
    """Read ``spec`` as a set, with the place of each line and the paths of its refs expanded."""
    if config.spec is None:
        return None
    names = {"HOME": str(home), "CONFIGDIR": str(base), "DATADIR": str(config.data_dir)}
    entries = part(document, "spec", "entries")
    found: object = entries.data
    if isinstance(found, Mapping):
        raw = cast(Raw, found)
        data = {key: _with_ref_paths(entry, names) for key, entry in raw.items()}
        entries = replace(entries, data=data)
    return inline_set(part(document, "spec", "defaults"), entries)


def _with_ref_paths(fields: Any, names: Mapping[str, str]) -> Any:
    def place(text: Any) -> Any:
        return expand(text, names, NO_ENVIRONMENT) if isinstance(text, str) else text

    for key in ("ref", "dev_ref"):
        fields = _with(fields, key, lambda ref: _with(_with_ref_paths(ref, names), "path", place))
    return fields


def _validated(
    data: Any, document: yaml12.Document, environ: Mapping[str, str], base: Path, home: Path
) -> Config:
    found = list(document.problems)
    config = None
    try:
        port = _port(environ)
        config = Config.read(_resolved(data, environ, base, home, port))
    except ValidationError as error:
        known = {problem.line for problem in found}
        meant = problems_from_validation(error, document.places, document.file)
        found += [problem for problem in meant if problem.line not in known or not problem.line]
    if found or config is None:
        raise SpecError(in_order(found), Code.INVALID_CONFIG)
    return config


def _port(environ: Mapping[str, str]) -> int | None:
    text = environ.get("DICODE_PORT", "")
    if not text:
        return None
    if not text.isdecimal() or int(text) > 65535:
        problem = Problem("$DICODE_PORT", 0, 0, "", "must be a number from 0 to 65535")
        raise SpecError([problem], Code.INVALID_CONFIG)
    return int(text)


def _resolved(
    data: Any, environ: Mapping[str, str], base: Path, home: Path, port: int | None
) -> Any:
    """Give raw configuration with absolute paths, and what the environment decides."""
    if not isinstance(data, Mapping):
        return data
    raw = dict(cast(Raw, data))
    names = {"HOME": str(home), "CONFIGDIR": str(base)}
    given = raw.get("data_dir") if raw.get("data_dir") is not None else None
    if given is None:
        given = environ.get("DICODE_DATA_DIR") or str(home / ".dicode")
    if isinstance(given, str):
        raw["data_dir"] = _absolute(given, names, base, home)
        names["DATADIR"] = str(raw["data_dir"])

    def place(text: Any) -> Any:
        return str(_absolute(text, names, base, home)) if isinstance(text, str) and text else text

    if isinstance(raw.get("sources"), list):
        raw["sources"] = [_source_paths(item, place) for item in raw["sources"]]
    if isinstance(raw.get("registries"), list):
        raw["registries"] = [_registry_paths(item, place) for item in raw["registries"]]
    if isinstance(raw.get("runtimes"), Mapping):
        runtimes = cast(Raw, raw["runtimes"])
        raw["runtimes"] = {key: _with(item, "path", place) for key, item in runtimes.items()}
    if port is not None and isinstance(raw.get("server", {}), Mapping):
        raw["server"] = {**cast(Raw, raw.get("server") or {}), "port": port}
    return raw


def _source_paths(source: Any, place: Callable[[Any], Any]) -> Any:
    if not isinstance(source, Mapping):
        return source
    raw = cast(Raw, source)
    out = _with(raw, "path", place) if raw.get("type") == "local" else raw
    return _with_auth_paths(out, place)


def _with_auth_paths(fields: Raw, place: Callable[[Any], Any]) -> Raw:
    def files(auth: Any) -> Any:
        return _with(_with(auth, "ssh_key", place), "known_hosts", place)

    return _with(fields, "auth", files)


def _registry_paths(registry: Any, place: Callable[[Any], Any]) -> Any:
    if isinstance(registry, str):
        return place(registry) if registry.startswith(_PATHS) else registry
    if not isinstance(registry, Mapping):
        return registry
    raw = cast(Raw, registry)
    out = raw if raw.get("url") is not None else _with(raw, "path", place)
    return _with_auth_paths(out, place)


def _with(fields: Any, name: str, change: Callable[[Any], Any]) -> Any:
    if not isinstance(fields, Mapping):
        return fields
    raw = cast(Raw, fields)
    return {**raw, name: change(raw[name])} if name in raw else raw


def _absolute(text: str, names: Mapping[str, str], base: Path, home: Path) -> Path:
    plain = _with_home(expand(text, names, NO_ENVIRONMENT), home)
    return Path(os.path.normpath(base / plain))


def _with_home(text: str, home: Path) -> str:
    return str(home) + text[1:] if text == "~" or text.startswith("~/") else text
