"""Where the master key is kept: systemd's credentials, a variable, or a file of the data dir.

A key is made only where nothing was ever sealed: sealed values whose key is gone stop the server,
since a new key would make their loss final and silent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.secrets.keys import KEY_BYTES, KeyRing, MasterKey, read_key

VARIABLE = "DICODE_MASTER_KEY"
CREDENTIAL = "dicode-master"
FILE = "master.key"
_MAX_BYTES = 64 * 1024
_ADVICE = (
    "bring back the key from your backup (dicode restore --key), or start with an empty data dir"
)


def find_keys(
    data_dir: Path, environ: MutableMapping[str, str], *, anything_sealed: bool
) -> KeyRing:
    """Give the key ring, making ``master.key`` where nothing was sealed yet. Blocks.

    The variable is taken out of ``environ`` at once, so that no child inherits it. Raises
    SECRETS_LOCKED when there are sealed values and no key, or a key that cannot be read.
    """
    given = environ.pop(VARIABLE, None)
    credential = _credential(environ)
    if credential is not None:
        return _ring(_read_private(credential, of_systemd=True), str(credential))
    if given is not None:
        return _ring(given, VARIABLE)
    file = data_dir / FILE
    if file.exists() or file.is_symlink():
        return _ring(_read_private(file), str(file))
    if anything_sealed:
        raise _stop(f"there are stored secrets, and their master key {file} is gone", _ADVICE)
    return KeyRing([write_keys(file, [new_key()])])


def given_by(environ: Mapping[str, str]) -> str | None:
    """Say what gives the key in place of the data dir's file; to be asked before ``find_keys``."""
    if _credential(environ) is not None:
        return f"systemd's credential {CREDENTIAL}"
    return f"the variable {VARIABLE}" if VARIABLE in environ else None


def new_key() -> MasterKey:
    """Make a key of the system's randomness."""
    return MasterKey(os.urandom(KEY_BYTES))


def write_keys(file: Path, keys: list[MasterKey]) -> MasterKey:
    """Write a key file, whole or not at all, for its owner only; gives the active key.

    A file that is there is replaced; a failed write leaves it as it was.
    """
    text = "".join(f"{key.text()}\n" for key in keys)
    fresh = file.with_name(f".{file.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        fresh.rename(file)
        _sync_folder(file.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise _stop(
            f"the master key {file} cannot be written: {error.strerror}",
            "make the data dir writable for the server's user",
        ) from None
    return keys[0]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _credential(environ: Mapping[str, str]) -> Path | None:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    file = Path(folder) / CREDENTIAL
    return file if file.exists() else None


def _read_private(file: Path, *, of_systemd: bool = False) -> str:
    """Read a key file that nobody else may read; systemd guards its credentials itself."""
    try:
        descriptor = os.open(
            file, os.O_RDONLY | os.O_CLOEXEC | (0 if of_systemd else os.O_NOFOLLOW)
        )
    except OSError as error:
        raise _stop(
            f"the master key {file} cannot be read: {error.strerror}",
            "make it a plain file that the server's user owns, mode 0600",
        ) from None
    with os.fdopen(descriptor, "rb") as opened:
        state = os.fstat(opened.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise _stop(f"the master key {file} is no plain file", "put the key in a plain file")
        if not of_systemd:
            _require_private(file, state)
        data = opened.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise _stop(f"the master key {file} is over {_MAX_BYTES} bytes", _ADVICE)
    return data.decode("ascii", "replace")


def _require_private(file: Path, state: os.stat_result) -> None:
    if state.st_uid != os.geteuid():
        raise _stop(f"the master key {file} belongs to another user", f"chown it: {file}")
    if stat.S_IMODE(state.st_mode) & 0o077:
        mode = oct(stat.S_IMODE(state.st_mode))[2:]
        raise _stop(
            f"the master key {file} can be read by others (mode {mode})",
            f"chmod 600 {file}, and rotate the key if someone may have read it",
        )


def _ring(text: str, where: str) -> KeyRing:
    """Read keys, one a line, the active one first."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return KeyRing([read_key(line) for line in lines])
    except ValueError as error:
        raise _stop(f"the master key in {where} is not one: {error}", _ADVICE) from None


def _stop(message: str, hint: str) -> DicodeError:
    return DicodeError(Code.SECRETS_LOCKED, message, hint=hint, retry=Retry.AFTER)
