"""The ballast, with real files; how full the disk is, is what the test says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicode_mcp.store.reserve import MIB, Reserve
from dicode_mcp.testing.clock import FakeClock


class Disk:
    """Stands in for ``os.statvfs``."""

    def __init__(self) -> None:
        self.free = 10_000 * MIB

    def __call__(self, _path: object) -> os.statvfs_result:
        blocks = self.free // 4096
        return os.statvfs_result((4096, 4096, blocks, blocks, blocks, 0, 0, 0, 0, 255))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "statvfs", made)
    return made


def a_reserve(folder: Path, clock: FakeClock, size: int = 2 * MIB) -> Reserve:
    return Reserve(folder, clock, size=size, min_free=1024 * MIB)


def test_the_ballast_occupies_real_blocks_and_is_private(tmp_path: Path, disk: Disk) -> None:
    reserve = a_reserve(tmp_path, FakeClock())
    reserve.prepare()
    found = reserve.path.stat()
    assert found.st_size == 2 * MIB
    assert found.st_blocks * 512 >= 2 * MIB
    assert found.st_mode & 0o777 == 0o600


def test_a_disk_with_little_room_gets_no_ballast(tmp_path: Path, disk: Disk) -> None:
    disk.free = 1023 * MIB
    reserve = a_reserve(tmp_path, FakeClock())
    reserve.prepare()
    assert not reserve.path.exists()
    assert reserve.release() is False
    assert not reserve.is_full()


def test_no_ballast_is_wanted_when_its_size_is_zero(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "ballast").write_bytes(b"x")
    a_reserve(tmp_path, FakeClock(), size=0).prepare()
    assert not (tmp_path / "ballast").exists()


def test_released_ballast_comes_back_when_there_is_room_again(tmp_path: Path, disk: Disk) -> None:
    clock = FakeClock()
    reserve = a_reserve(tmp_path, clock)
    reserve.prepare()
    assert reserve.release() is True
    assert not reserve.path.exists()
    disk.free = 3 * MIB
    clock.advance(5)
    assert reserve.is_full()
    disk.free = 4 * MIB
    assert reserve.is_full(), "looked at once a second only"
    clock.advance(1)
    assert not reserve.is_full()
    assert reserve.path.stat().st_size == 2 * MIB


def test_logs_stop_before_the_disk_is_full(tmp_path: Path, disk: Disk) -> None:
    reserve = a_reserve(tmp_path, FakeClock())
    reserve.prepare()
    assert reserve.logs_allowed()
    disk.free = MIB // 4
    assert not reserve.logs_allowed()
    assert not reserve.is_full()


def test_a_ballast_that_cannot_be_written_is_left_out(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room, raising=False)
    reserve = a_reserve(tmp_path, FakeClock())
    reserve.prepare()
    assert not reserve.path.exists()


def test_a_system_without_fallocate_gets_its_ballast_too(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    reserve = a_reserve(tmp_path, FakeClock(), size=2 * MIB + 5)
    reserve.prepare()
    assert reserve.path.stat().st_size == 2 * MIB + 5
