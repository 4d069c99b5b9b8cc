"""Archives that somebody made, or that broke: refused whole, and nothing of them is left."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.backup.archive import unpack
from dicode_mcp.backup.manifest import Manifest
from dicode_mcp.errors import Code, DicodeError

ROOM = 10**12
STATE = b"not really a database"


def entry(path: str, data: bytes, **other: Any) -> dict[str, Any]:
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **other}


def manifest(*files: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "product": "dicode-mcp",
        "version": "1.0",
        "created_at": "2026-05-01T00:00:00.000Z",
        "state_schema": "0010",
        "files": [entry("state.db", STATE), *files],
        **other,
    }


def header(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def packed(described: Any, *members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    with gzip.open(out, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w|") as tar:
        for info, data in (header("manifest.json", text), *members):
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


GOOD = header("state.db", STATE)


def refused(archive: io.BytesIO, folder: Path, room: int = ROOM) -> DicodeError:
    inside = folder / "inside"
    inside.mkdir()
    with pytest.raises(DicodeError) as caught:
        unpack(archive, inside, room)
    assert {path.name for path in folder.iterdir()} == {"inside"}
    return caught.value


def test_a_good_one_is_taken_out_for_its_owner_only(tmp_path: Path) -> None:
    data = b"tasks: []\n"
    set_file = entry("installed/a/taskset.yaml", data)
    archive = packed(manifest(set_file), GOOD, header("installed/a/taskset.yaml", data, mode=0o777))
    found = unpack(archive, tmp_path, ROOM)
    assert isinstance(found, Manifest)
    assert (tmp_path / "state.db").read_bytes() == STATE
    file = tmp_path / "installed/a/taskset.yaml"
    assert file.read_bytes() == data
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "path",
    [
        "../state.db",
        "installed/../../x",
        "/etc/passwd",
        "installed//x",
        "installed/./x",
        "installed/",
        "installed",
        "installed/a\\b",
        "installed/a\0b",
        "installed/\x1b[2J",
        "installed/" + "a/" * 20 + "b",
        "master.key",
        "dicode.sock",
        "runs/x",
        "",
        ".",
        "STATE.DB",
    ],
)
def test_a_path_that_no_backup_has_is_refused(tmp_path: Path, path: str) -> None:
    data = b"x"
    archive = packed(manifest(entry(path, data)), GOOD, header("installed/x", data))
    assert refused(archive, tmp_path).code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "member",
    [
        header("../outside", b"x"),
        header("/tmp/outside", b"x"),
        header("state.db", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        header("state.db", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        header("state.db", type=tarfile.DIRTYPE),
        header("state.db", type=tarfile.FIFOTYPE),
        header("state.db", type=tarfile.CHRTYPE),
        header("installed/x", b"x"),
        header("state.db", STATE + b"more"),
        header("state.db", STATE[:-1]),
        header("state.db", STATE[::-1]),
    ],
)  # fmt: skip
def test_what_the_manifest_does_not_describe_is_refused(
    tmp_path: Path, member: tuple[tarfile.TarInfo, bytes]
) -> None:
    assert refused(packed(manifest(), member), tmp_path).code is Code.INVALID_ARGUMENT


def test_a_link_beside_good_files_is_refused(tmp_path: Path) -> None:
    link = header("installed/x", type=tarfile.SYMTYPE, linkname="../../..")
    archive = packed(manifest(entry("installed/x", b"")), GOOD, link)
    refused(archive, tmp_path)


def test_a_file_twice_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    refused(packed(manifest(), GOOD, GOOD), tmp_path / "a")
    (tmp_path / "b").mkdir()
    assert "missing" in refused(packed(manifest()), tmp_path / "b").message
    (tmp_path / "c").mkdir()
    twice = manifest(entry("state.db", STATE))
    assert "twice" in refused(packed(twice, GOOD), tmp_path / "c").message


@pytest.mark.parametrize(
    "described",
    [
        b"no json",
        b"[]",
        b"[" * 100_000,
        b"{}",
        {**manifest(), "format": 2},
        {**manifest(), "product": "other"},
        {**manifest(), "files": "x"},
        {**manifest(), "files": []},
        {**manifest(), "files": [entry("installed/x", b"")]},
        {**manifest(), "files": [entry("state.db", STATE)] * 10_001},
        {**manifest(), "version": "\x1b]0;x"},
        {**manifest(), "key_id": 3},
        manifest(entry("installed/x", b"", size=-1)),
        manifest(entry("installed/x", b"", size=True)),
        manifest(entry("installed/x", b"", size=2**40)),
        manifest(entry("installed/x", b"", sha256="ab")),
        manifest(entry("installed/x", b""), state_schema=None),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(tmp_path: Path, described: Any) -> None:
    error = refused(packed(described, GOOD), tmp_path)
    assert error.code is Code.INVALID_ARGUMENT
    assert "\x1b" not in error.message


def test_what_needs_more_room_than_there_is_is_refused_before_it_is_written(tmp_path: Path) -> None:
    assert refused(packed(manifest(), GOOD), tmp_path, room=5).code is Code.STORAGE_FULL


def test_a_header_that_unpacks_to_gigabytes_is_not_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    text = json.dumps(manifest()).encode()
    with gzip.open(out, "wb", compresslevel=1) as zipped:
        first, _ = header("manifest.json", text)
        zipped.write(first.tobuf() + text.ljust(-(-len(text) // 512) * 512, b"\0"))
        bomb, _ = header("x")
        bomb.type, bomb.size = tarfile.XHDTYPE, 2**32
        zipped.write(bomb.tobuf())
        for _ in range(64):
            zipped.write(bytes(2**20))
    out.seek(0)
    assert "longer than" in refused(out, tmp_path).message


@pytest.mark.parametrize("cut", [0, 5, 30, 200])
def test_a_part_of_an_archive_is_refused(tmp_path: Path, cut: int) -> None:
    data = packed(manifest(), GOOD).getvalue()
    refused(io.BytesIO(data[:cut]), tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_byte_is_found_or_harmless(tmp_path: Path, seed: int) -> None:
    data = bytearray(packed(manifest(), GOOD).getvalue())
    place = (seed * 7919) % len(data)
    data[place] ^= 1 << (seed % 8)
    (tmp_path / "inside").mkdir()
    try:
        unpack(io.BytesIO(bytes(data)), tmp_path / "inside", ROOM)
    except DicodeError as error:
        assert error.code is Code.INVALID_ARGUMENT  # noqa: PT017
    else:
        assert (tmp_path / "inside/state.db").read_bytes() == STATE
    assert os.listdir(tmp_path) == ["inside"]
