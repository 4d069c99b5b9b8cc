"""The archive as a file: a tar in gzip, the manifest first. Blocks.

Nothing of an archive is trusted: only plain files that its manifest names are taken out, each of
the length and digest it says, and no more bytes are read than these can need.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

from dicode_mcp.backup.manifest import MAX_BYTES, NAME, Entry, Manifest, damaged, read_manifest
from dicode_mcp.errors import Code, DicodeError

_PIECE = 1024 * 1024
_HEADER_BYTES = 4096
"""What tar needs beside a file's bytes: its header, one for a long name, padding."""
_SLACK = 256 * 1024


def digest_of(path: Path, name: str) -> Entry:
    """Describe a file that is to be archived as ``name``."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return Entry(name, size, digest.hexdigest())


def pack(out: IO[bytes], manifest: Manifest, files: Iterable[tuple[str, Path]]) -> None:
    """Write an archive of ``files`` (name, where it lies), which the manifest describes."""
    with (
        gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        text = manifest.text()
        tar.addfile(_header(NAME, len(text)), io.BytesIO(text))
        sizes = manifest.paths
        for name, path in files:
            with path.open("rb") as file:
                tar.addfile(_header(name, sizes[name].size), file)


def _header(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


def unpack(source: IO[bytes], folder: Path, room: int) -> Manifest:
    """Take an archive out into ``folder``, which is empty and has ``room`` bytes.

    What was written by then is the caller's to remove. Raises INVALID_ARGUMENT, STORAGE_FULL.
    """
    limited = _Limited(cast("IO[bytes]", gzip.GzipFile(fileobj=source, mode="rb")))
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", limited), mode="r|") as tar:
            manifest = _first(tar)
            if manifest.total > room:
                raise _no_room(manifest.total, room)
            limited.allow(manifest.total + _HEADER_BYTES * (len(manifest.files) + 1))
            _take(tar, manifest, folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError):
        raise damaged("it is no archive, or only a part of one") from None
    return manifest


def _no_room(needed: int, room: int) -> DicodeError:
    return DicodeError(
        Code.STORAGE_FULL,
        f"the backup needs {needed} bytes, and the disk of the data dir has {max(0, room)} to give",
        hint="make room, or choose another data dir (--data-dir)",
    )


def _first(tar: tarfile.TarFile) -> Manifest:
    info = tar.next()
    if info is None or info.name != NAME or not info.isreg() or info.size > MAX_BYTES:
        raise damaged("it does not begin with a manifest")
    file = tar.extractfile(info)
    if file is None:
        raise damaged("its manifest cannot be read")
    return read_manifest(file.read(MAX_BYTES + 1))


def _take(tar: tarfile.TarFile, manifest: Manifest, folder: Path) -> None:
    left = manifest.paths
    while (info := tar.next()) is not None:
        entry = left.pop(info.name, None)
        # A link, a device or a folder has no place here, whatever it is called.
        if entry is None or not info.isreg() or info.issparse() or info.size != entry.size:
            raise damaged("it holds something that its manifest does not name")
        file = tar.extractfile(info)
        if file is None:
            raise damaged("it holds something that is no file")
        _copy(file, entry, folder / entry.path)
    if left:
        raise damaged(f"{len(left)} of its files are missing")


def _copy(file: IO[bytes], entry: Entry, to: Path) -> None:
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise damaged(f"{entry.path} is not what was written: its checksum differs")


class _Limited:
    """Gives no more bytes than were allowed: an archive can say that it is any length."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = MAX_BYTES + _SLACK

    def allow(self, more: int) -> None:
        self._left += more

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise damaged("it is longer than its manifest says")
        data = self._file.read(size)
        self._left -= len(data)
        return data
