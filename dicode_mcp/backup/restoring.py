"""``dicode restore``: a data dir from a backup, on a machine that may have nothing else. Blocks.

Everything is unpacked and checked beside its place first; what is wrong by then changes nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dicode_mcp import __version__
from dicode_mcp.backup import databases
from dicode_mcp.backup.archive import unpack
from dicode_mcp.backup.manifest import CONFIG, LOGS, STATE, Manifest
from dicode_mcp.clock import Clock, iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.secrets.keys import KeyRing, read_key
from dicode_mcp.secrets.master import FILE as KEY_FILE
from dicode_mcp.secrets.master import write_keys
from dicode_mcp.service.audit_notes import leave
from dicode_mcp.store.lock import LOCK_NAME, DataDirLock
from dicode_mcp.store.schema import LOGS_SCHEMA, STATE_SCHEMA, Schema

_MAX_KEY_BYTES = 64 * 1024
_KEPT = frozenset(
    {LOCK_NAME, "server.starting", "server.log", "server.log.1", "server.args.json", CONFIG}
)
"""What a data dir may have before it is one: nothing of it is state, and it stays."""
_SPARE = 64 * 1024 * 1024
"""Bytes that a restore leaves free on the disk, so that the server can start."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to restore and where to."""

    data_dir: Path
    file: Path
    key: Path | None = None
    force: bool = False


def restore(asked: Asked, clock: Clock) -> dict[str, Any]:
    """Make the data dir anew: ``{data_dir, version, created_at, files, key, before?, config?}``.

    ``key`` is ``restored``, ``missing`` (with ``key_id``) or ``not_needed``; ``before`` is where
    the earlier state was put, with ``force``. Raises ALREADY_RUNNING, CONFLICT, DATA_DIR,
    INVALID_ARGUMENT, SECRETS_LOCKED; then the data dir is as it was.
    """
    keys = read_keys(asked.key) if asked.key else None
    with opened(asked.file) as archive, DataDirLock(asked.data_dir) as _, _guarded():
        if keys is not None and not asked.force:
            _require_same_key(asked.data_dir / KEY_FILE, keys)
        present = _present(asked.data_dir)
        if present and not asked.force:
            raise _not_empty(asked.data_dir, present)
        with _staging(asked.data_dir) as folder:
            room = shutil.disk_usage(asked.data_dir).free - _SPARE
            manifest = unpack(archive, folder, room)
            _check(manifest, folder)
            secrets = _check_keys(manifest, folder, keys, asked.data_dir)
            before = None
            if keys is not None and (asked.data_dir / KEY_FILE).exists():
                present = [*present, KEY_FILE]
            if present:
                before = _put_aside(asked.data_dir, present, clock)
            config = _put(folder, asked.data_dir, manifest)
            if keys is not None:
                write_keys(asked.data_dir / KEY_FILE, list(keys))
            _note(asked, manifest, key=secrets, aside=before is not None)
    told: dict[str, Any] = {
        "data_dir": str(asked.data_dir),
        "version": manifest.version,
        "created_at": manifest.created_at,
        "files": len(manifest.files),
        "logs": manifest.logs_schema is not None,
        "key": secrets,
    }
    if manifest.key_id:
        told["key_id"] = manifest.key_id
    told |= {"before": str(before)} if before else {}
    return told | ({"config": str(config)} if config else {})


def _note(asked: Asked, manifest: Manifest, **detail: Any) -> None:
    """Leave a word for the audit log, which goes on from what was restored."""
    detail |= {"created_at": manifest.created_at, "version": manifest.version}
    with suppress(OSError):
        leave(asked.data_dir, "restore", asked.file.name, detail)


# ── What is asked for ──


@contextmanager
def opened(file: Path) -> Generator[IO[bytes]]:
    """Open a backup to be read. Raises INVALID_ARGUMENT."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DicodeError(
            Code.INVALID_ARGUMENT, f"the backup {file} cannot be read: {error.strerror}"
        ) from None
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DicodeError(Code.INVALID_ARGUMENT, f"the backup {file} is no plain file")
        yield opened


def read_keys(path: Path) -> KeyRing:
    """Read a file of master keys. Raises INVALID_ARGUMENT, SECRETS_LOCKED."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_KEY_BYTES).decode("ascii", "replace")
        return KeyRing([read_key(line) for line in text.splitlines() if line.strip()])
    except OSError as error:
        raise DicodeError(
            Code.INVALID_ARGUMENT, f"the key {path} cannot be read: {error.strerror}"
        ) from None
    except ValueError as error:
        raise DicodeError(
            Code.SECRETS_LOCKED,
            f"{path} is no master key: {error}",
            hint="give the file that `dicode backup --key` wrote, or a master.key",
        ) from None


def _present(data_dir: Path) -> list[str]:
    """Give what is in the data dir and would be mixed with what is restored."""
    names = sorted(entry.name for entry in os.scandir(data_dir))
    return [name for name in names if name not in _KEPT and name != KEY_FILE]


def _not_empty(data_dir: Path, present: list[str]) -> DicodeError:
    shown = ", ".join(name for name in present[:5] if name.isprintable())
    return DicodeError(
        Code.CONFLICT,
        f"the data dir {data_dir} is not empty: it has {shown}",
        hint="restore into another one (--data-dir), or give --force: what is there is then put"
        " aside, not deleted",
    )


def _require_same_key(here: Path, keys: KeyRing) -> None:
    """Refuse to put a key in the place of another one."""
    if here.exists() and {key.id for key in read_keys(here)} != {key.id for key in keys}:
        raise DicodeError(
            Code.CONFLICT,
            f"{here} is there already, and is another key",
            hint="move it away, or give --force: it is then put aside, not deleted",
        )


@contextmanager
def _guarded() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise DicodeError(
            Code.STORAGE_FULL if error.errno == 28 else Code.DATA_DIR,
            f"the backup could not be restored: {error.strerror}",
            hint="make room or mend the folder, and do it again (with --force if it began)",
        ) from None


@contextmanager
def _staging(data_dir: Path) -> Generator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".restoring-", dir=data_dir))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ── Checks ──


def _check(manifest: Manifest, folder: Path) -> None:
    _check_schema(manifest, folder / STATE, STATE_SCHEMA)
    if (folder / LOGS).exists():
        _check_schema(manifest, folder / LOGS, LOGS_SCHEMA)


def _check_schema(manifest: Manifest, path: Path, schema: Schema) -> None:
    databases.check(path)
    if databases.revision(path) not in schema.revisions:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"the backup is of dicode-mcp {manifest.version}, which is newer than this one"
            f" ({__version__}): its {path.name} has tables that this version does not know",
            hint="upgrade dicode-mcp, then restore; nothing was restored",
        )


def _check_keys(manifest: Manifest, folder: Path, keys: KeyRing | None, data_dir: Path) -> str:
    """Tell whether the restored secrets can be opened; a wrong key is refused."""
    if databases.sealed_with(folder / STATE) is None:
        return "not_needed"
    if keys is not None:
        databases.open_all(folder / STATE, keys)
        return "restored"
    here = data_dir / KEY_FILE
    if not here.exists():
        return "missing"
    databases.open_all(folder / STATE, read_keys(here))
    return "present"


# ── Putting it in its place ──


def _put_aside(data_dir: Path, present: list[str], clock: Clock) -> Path:
    """Move the earlier state into a folder of its own; SQLite's side files must not stay."""
    moment = iso(clock.now_ms()).replace(":", "").replace("-", "").partition(".")[0]
    aside = Path(tempfile.mkdtemp(prefix=f"before-restore-{moment}-", dir=data_dir))
    for name in present:
        if not name.startswith("before-restore-"):
            (data_dir / name).rename(aside / name)
    return aside


def _put(folder: Path, data_dir: Path, manifest: Manifest) -> Path | None:
    """Move the files to their places, the database last; gives where the configuration is."""
    config: Path | None = None
    tops = {entry.path.partition("/")[0] for entry in manifest.files}
    for name in sorted(tops - {STATE, CONFIG}):
        (folder / name).rename(data_dir / name)
    if CONFIG in tops:
        config = data_dir / CONFIG
        if config.exists() or config.is_symlink():
            config = data_dir / f"{CONFIG}.restored"
        (folder / CONFIG).replace(config)
    (folder / STATE).rename(data_dir / STATE)
    descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return config
