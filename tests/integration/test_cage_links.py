"""Links on granted paths that change after the task was loaded: nothing new comes into sight."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from dicode_mcp.cage import landlock
from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.fence import Fence
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.spec.model import FsGrant, Permissions
from dicode_mcp.testing.cages import this_machine
from dicode_mcp.testing.runtime_house import RuntimeHouse
from dicode_runtimes.python import PythonRuntime

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or this_machine().landlock < 3, reason="no cage here"
)
SECRET = "CANARY-LINK"


class Room:
    """A task that may write ``work``, and read ``work/link``; the server's folder is beside it."""

    def __init__(self, house: RuntimeHouse, folder: Path) -> None:
        self.house = house
        self.work = folder / "work"
        self.data = folder / "data"
        self.link = self.work / "link"
        (self.work / "plain").mkdir(parents=True)
        (self.work / "plain" / "file").write_text("mine")
        self.data.mkdir()
        (self.data / "file").write_text(SECRET)
        self.permissions = Permissions(
            fs=(
                FsGrant(path=str(self.work), permission="rw"),
                FsGrant(path=str(self.link), permission="r"),
            )
        )

    async def read(self) -> object:
        """Read through the link in a run."""
        script = f"result = open({str(self.link / 'file')!r}).read()\n"
        return (await self.house.run(script, permissions=self.permissions)).value

    async def lead(self, to: Path) -> None:
        """Let the task itself make the link."""
        script = f"""
            import os
            try:
                os.unlink({str(self.link)!r})
            except FileNotFoundError:
                pass
            os.symlink({str(to)!r}, {str(self.link)!r})
        """
        permissions = Permissions(fs=(FsGrant(path=str(self.work), permission="rw"),))
        await self.house.run(script, permissions=permissions)
        assert os.readlink(self.link) == str(to)


@pytest_asyncio.fixture(params=["namespaces", "landlock"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    probe = this_machine()
    if request.param == "landlock":
        probe = replace(probe, files="no", files_as_root="no")
    elif not probe.separates:
        pytest.skip("no namespaces here")
    become_subreaper()
    fence = Fence(tmp_path / "data", tmp_path / "home", (tmp_path / "dicode.yaml",))
    cages = Cages("strict", probe, Ceilings(2**31, 512), fence=fence)
    async with SpawnExecutor(SystemClock(), cages=cages) as executor:
        (tmp_path / "house").mkdir()
        yield Room(RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path / "house"), tmp_path)


async def test_a_link_that_a_task_turns_to_the_server_s_folder_is_refused(room: Room) -> None:
    await room.lead(room.work / "plain")
    assert await room.read() == "mine"
    for place in (room.data, room.data.parent, Path("/proc/sys"), Path("/dev/shm")):
        await room.lead(place)
        with pytest.raises(DicodeError) as caught:
            await room.read()
        assert caught.value.code is Code.SANDBOX_UNAVAILABLE
        assert f"permissions.fs: {room.link} leads to" in caught.value.message
        assert "nothing was run" in caught.value.message
        assert SECRET not in caught.value.message
    await room.lead(room.work / "plain")
    assert await room.read() == "mine"


async def test_a_link_that_leads_to_the_task_itself_does_not_make_it_writable(room: Room) -> None:
    room.link.symlink_to(room.house.folder)
    permissions = Permissions(fs=(FsGrant(path=str(room.link), permission="rw"),))
    with pytest.raises(DicodeError, match=r"its own manifest|the task's own folder"):
        await room.house.run("result = 1", permissions=permissions)


def test_a_rule_for_a_path_with_a_link_on_the_way_is_not_made(tmp_path: Path) -> None:
    """As when somebody puts a link where a folder was, after the server has looked."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    pid = os.fork()
    if pid == 0:
        try:
            landlock.restrict([(str(tmp_path / "link"), "r")])
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.strerror(os.waitstatus_to_exitcode(status)) == "Too many levels of symbolic links"


async def test_a_link_to_everything_shows_nothing(room: Room) -> None:
    for place in (Path("/"), Path("/proc/1/root")):
        await room.lead(place)
        script = f"""
            import os
            try:
                result = os.listdir({str(room.link)!r})
            except OSError as error:
                result = error.strerror
        """
        ended = await room.house.run(script, permissions=room.permissions)
        assert isinstance(ended.value, str), ended.value


async def test_no_task_may_write_above_itself(room: Room) -> None:
    """It could rename what is above it and put another manifest in its place."""
    above = str(room.house.folder.parent)
    permissions = Permissions(fs=(FsGrant(path=above, permission="rw"),))
    with pytest.raises(DicodeError, match="its own manifest or script"):
        await room.house.run("result = 1", permissions=permissions)
