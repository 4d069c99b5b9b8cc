"""Fetching over ssh, from a real sshd."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from githouse import OpenCheckouts

from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import GitAuth, GitRef
from dicode_mcp.testing.gitserver import Repository
from dicode_mcp.testing.lacking import lacking

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class Sshd:
    """A running sshd, which lets the owner of ``key`` in."""

    room: Path
    port: int
    repository: Repository

    @property
    def key(self) -> str:
        return str(self.room / "client")

    @property
    def known_hosts(self) -> Path:
        return self.room / "known_hosts"

    def ref(self, **auth: str) -> GitRef:
        return GitRef(
            f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{self.repository.path}",
            trusted=True,
            auth=GitAuth(
                **{"ssh_key": self.key, "known_hosts": str(self.known_hosts), **auth}  # pyright: ignore[reportArgumentType]
            ),
        )

    def knows(self, host_key: str = "host") -> None:
        """Note the host's key (or another) as known."""
        kind, key, *_ = (self.room / f"{host_key}.pub").read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")


def _make_key(path: Path) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def sshd(tmp_path: Path) -> Generator[Sshd]:
    if SSHD is None or shutil.which("ssh") is None:
        lacking("needs openssh-server and openssh-client")
    room = tmp_path / "ssh"
    room.mkdir(mode=0o700)
    for name in ("host", "client", "stranger"):
        _make_key(room / name)
    shutil.copy(room / "client.pub", room / "authorized_keys")
    port = _free_port()
    (room / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {room}/host\nPidFile none\n"
        f"AuthorizedKeysFile {room}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\nAcceptEnv GIT_PROTOCOL\nLogLevel QUIET\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(
        [SSHD, "-D", "-f", str(room / "config")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_port(process, port)
        (room / "known_hosts").touch()
        yield Sshd(room, port, Repository(tmp_path / "served" / "tasks.git"))
    finally:
        process.terminate()
        process.wait(10)


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    lacking("sshd cannot be started here")


async def test_a_known_host_is_fetched_from_and_polled(
    sshd: Sshd, open_checkouts: OpenCheckouts
) -> None:
    sshd.knows()
    sshd.repository.commit({"a": "1"})
    async with open_checkouts() as checkouts:
        await checkouts.latest(sshd.ref())
        commit = sshd.repository.commit({"a": "2"})
        revision = await checkouts.latest(sshd.ref(), now=True)
    assert revision.commit == commit
    assert (revision.root / "a").read_text() == "2"


async def test_a_host_whose_key_is_not_known_is_refused(
    sshd: Sshd, open_checkouts: OpenCheckouts
) -> None:
    sshd.repository.commit({"a": "1"})
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="a key that ssh does not know") as raised:
            await checkouts.latest(sshd.ref())
    assert raised.value.data == {"reason": "UnknownHostKey"}
    assert "ssh-keyscan" in (raised.value.hint or "")
    assert sshd.known_hosts.read_text() == ""


async def test_a_new_host_is_noted_when_that_was_chosen_and_then_held_to_its_key(
    sshd: Sshd, open_checkouts: OpenCheckouts
) -> None:
    sshd.repository.commit({"a": "1"})
    async with open_checkouts() as checkouts:
        assert (await checkouts.latest(sshd.ref(host_keys="accept-new"))).commit
        assert "ssh-ed25519" in sshd.known_hosts.read_text()
        assert (await checkouts.latest(sshd.ref())).commit


@pytest.mark.parametrize("host_keys", ["strict", "accept-new"])
async def test_a_host_with_another_key_than_before_is_refused(
    host_keys: str, sshd: Sshd, open_checkouts: OpenCheckouts
) -> None:
    sshd.knows("stranger")
    sshd.repository.commit({"a": "1"})
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="another key than ssh knows") as raised:
            await checkouts.latest(sshd.ref(host_keys=host_keys))
    assert raised.value.data == {"reason": "UnknownHostKey"}


async def test_a_key_the_host_does_not_know_is_refused(
    sshd: Sshd, open_checkouts: OpenCheckouts
) -> None:
    sshd.knows()
    ref = sshd.ref(ssh_key=str(sshd.room / "stranger"))
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="refuses the ssh key") as raised:
            await checkouts.latest(ref)
    assert raised.value.data == {"reason": "AuthFailed"}


async def test_a_key_file_that_is_not_there_is_named(
    sshd: Sshd, open_checkouts: OpenCheckouts
) -> None:
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="/no/such/key is not there"):
            await checkouts.latest(sshd.ref(ssh_key="/no/such/key"))


async def test_a_repository_that_is_not_there_is_told_as_that(
    sshd: Sshd, open_checkouts: OpenCheckouts
) -> None:
    sshd.knows()
    shutil.rmtree(sshd.repository.path)
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="there is no git repository"):
            await checkouts.latest(sshd.ref())


async def test_a_path_with_a_quote_runs_nothing_on_the_host(
    sshd: Sshd, open_checkouts: OpenCheckouts, tmp_path: Path
) -> None:
    sshd.knows()
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd.port}/x';touch${{IFS}}{tmp_path}/pwned;'"
    ref = GitRef(url, trusted=True, auth=sshd.ref().auth)
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError):
            await checkouts.latest(ref)
    assert not (tmp_path / "pwned").exists()
