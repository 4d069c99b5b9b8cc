"""``dicode backup``: everything of a data dir that cannot be made anew, as one file. Blocks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicode_mcp import __version__
from dicode_mcp.backup import databases
from dicode_mcp.backup.archive import digest_of, pack
from dicode_mcp.backup.manifest import (
    CONFIG,
    INSTALLED,
    LOGS,
    MAX_FILES,
    PINNED,
    STATE,
    Manifest,
    check_path,
    max_size,
)
from dicode_mcp.clock import Clock, iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.secrets.keys import KeyRing
from dicode_mcp.secrets.master import find_keys, write_keys
from dicode_mcp.service.audit_notes import leave


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to save and where. ``key`` is where the master key goes, if it is wanted at all."""

    data_dir: Path
    file: Path
    key: Path | None = None
    config: Path | None = None
    logs: bool = False
    force: bool = False


def save(wanted: Wanted, environ: MutableMapping[str, str], clock: Clock) -> dict[str, Any]:
    """Write the backup: ``{file, bytes, files, runs_logs, key_id?, key?}``.

    Both files appear whole or not at all, for their owner only. Raises DATA_DIR, CONFLICT,
    SECRETS_LOCKED.
    """
    _require_data_dir(wanted.data_dir)
    for path in (wanted.file, wanted.key):
        _require_free(path, wanted.force)
    with _beside(wanted.file) as folder:
        keys = _keys(wanted, environ)
        manifest, files = _collect(wanted, folder, clock)
        if keys is not None:
            databases.open_all(folder / STATE, keys)
        draft = folder / "archive"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            pack(out, manifest, files)
            out.flush()
            os.fsync(out.fileno())
        size = draft.stat().st_size
        if keys is not None and wanted.key is not None:
            # First, so that no archive is there whose key was asked for and is not.
            write_keys(wanted.key, list(keys))
        draft.replace(wanted.file)
    _note(wanted, manifest)
    told: dict[str, Any] = {"file": str(wanted.file), "bytes": size, "files": len(files)}
    told["logs"] = manifest.logs_schema is not None
    if manifest.key_id:
        told["key_id"] = manifest.key_id
    return told | ({"key": str(wanted.key)} if wanted.key else {})


def _note(wanted: Wanted, manifest: Manifest) -> None:
    """Leave a word for the audit log: that is no reason for a backup to fail."""
    detail = {"master_key": wanted.key is not None, "logs": manifest.logs_schema is not None}
    with suppress(OSError):
        leave(wanted.data_dir, "backup", wanted.file.name, detail)


def _require_data_dir(data_dir: Path) -> None:
    try:
        state = (data_dir / STATE).stat()
    except OSError:
        raise DicodeError(
            Code.DATA_DIR,
            f"there is nothing to back up: {data_dir} has no {STATE}",
            hint="name the server's data dir with --data-dir",
        ) from None
    if state.st_uid != os.geteuid():
        # Files that SQLite makes beside it would be ours, and the server could not write them.
        raise DicodeError(
            Code.DATA_DIR,
            f"the data dir {data_dir} belongs to another user",
            hint="run this as the user that runs the server",
        )


def _require_free(path: Path | None, force: bool) -> None:
    if path is None:
        return
    if not path.parent.is_dir():
        raise DicodeError(Code.INVALID_ARGUMENT, f"the folder of {path} does not exist")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise DicodeError(Code.CONFLICT, f"{path} is no plain file", hint="give another name")
    if path.exists() and not force:
        raise DicodeError(
            Code.CONFLICT,
            f"{path} is there already",
            hint="give another name, or --force to replace it",
        )


@contextmanager
def _beside(file: Path) -> Generator[Path]:
    """Give a private folder on the file system of ``file``."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{file.name}.", dir=file.parent))
    except OSError as error:
        raise DicodeError(
            Code.INVALID_ARGUMENT, f"{file.parent} cannot be written to: {error.strerror}"
        ) from None
    try:
        yield folder
    except OSError as error:
        raise DicodeError(
            Code.STORAGE_FULL if error.errno == 28 else Code.DATA_DIR,
            f"the backup could not be written: {error.strerror}",
            hint="nothing was left behind; make room, and do it again",
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keys(wanted: Wanted, environ: MutableMapping[str, str]) -> KeyRing | None:
    if wanted.key is None:
        return None
    # ``anything_sealed`` keeps it from making a key where there is none.
    return find_keys(wanted.data_dir, environ, anything_sealed=True)


def _collect(wanted: Wanted, folder: Path, clock: Clock) -> tuple[Manifest, list[tuple[str, Path]]]:
    created = iso(clock.now_ms())
    databases.copy(wanted.data_dir / STATE, folder / STATE)
    files = [(STATE, folder / STATE)]
    logs_schema = None
    if wanted.logs and (wanted.data_dir / LOGS).exists():
        databases.copy(wanted.data_dir / LOGS, folder / LOGS)
        logs_schema = databases.revision(folder / LOGS)
        files.append((LOGS, folder / LOGS))
    files += _copied(_small(wanted), folder / "files")
    manifest = Manifest(
        version=__version__,
        created_at=created,
        state_schema=databases.revision(folder / STATE),
        logs_schema=logs_schema,
        key_id=databases.sealed_with(folder / STATE),
        files=tuple(digest_of(path, name) for name, path in files),
    )
    return manifest, files


def _copied(files: list[tuple[str, Path]], folder: Path) -> list[tuple[str, Path]]:
    """Copy small files: the server may change them between their digest and the archive."""
    folder.mkdir(mode=0o700)
    copies: list[tuple[str, Path]] = []
    for number, (name, path) in enumerate(files):
        copy = folder / str(number)
        with suppress(FileNotFoundError):
            shutil.copyfile(path, copy, follow_symlinks=False)
            copies.append((name, copy))
    return copies


def _small(wanted: Wanted) -> list[tuple[str, Path]]:
    found = [(PINNED, wanted.data_dir / PINNED)]
    if wanted.config is not None:
        found.append((CONFIG, wanted.config))
    root = wanted.data_dir / INSTALLED
    for folder, _, names in os.walk(root):
        found += [
            ((Path(INSTALLED) / (Path(folder) / name).relative_to(root)).as_posix(), path)
            for name in sorted(names)
            if (path := Path(folder) / name)
        ]
    plain = [(name, path) for name, path in found if path.is_file() and not path.is_symlink()]
    for name, path in plain:
        check_path(name)
        if path.stat().st_size > max_size(name):
            raise _too_much(f"{path} is larger than {max_size(name)} bytes")
    if len(plain) > MAX_FILES - 2:
        raise _too_much(f"{root} has more than {MAX_FILES - 2} files")
    return plain


def _too_much(what: str) -> DicodeError:
    return DicodeError(
        Code.TOO_LARGE, f"this is more than a backup takes: {what}", hint="move it elsewhere"
    )
