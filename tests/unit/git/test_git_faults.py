"""A remote that fails: certificates, redirects, silence, credentials that must not get about."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Generator
from pathlib import Path

import pytest
from githouse import OpenCheckouts

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import GitAuth, GitRef
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.testing.gitserver import Exchange, GitServer, make_certificate, serving
from dicode_mcp.testing.waiting import until

CANARY = "tok3n-canary-9f8e7d"


def reason(checkouts: GitCheckouts, ref: GitRef) -> str | None:
    trouble = checkouts.trouble(ref)
    return trouble.reason if trouble else None


@pytest.fixture
def secure(tmp_path: Path) -> Generator[tuple[GitServer, Path]]:
    """A server over https, and the certificate of its authority."""
    certificate, context = make_certificate(tmp_path / "tls")
    with serving(tmp_path / "secure", tls=context) as server:
        yield server, certificate


async def test_https_is_verified_against_the_authority_that_is_named(
    secure: tuple[GitServer, Path], open_checkouts: OpenCheckouts
) -> None:
    server, certificate = secure
    server.repository().commit({"a": "1"})
    server.token = CANARY
    ref = GitRef(server.url_of(), trusted=True, auth=GitAuth(token_env="TOKEN"))
    async with open_checkouts(SSL_CERT_FILE=str(certificate), TOKEN=CANARY) as checkouts:
        assert (await checkouts.latest(ref)).commit


async def test_a_certificate_of_a_stranger_is_refused_before_the_token_is_sent(
    secure: tuple[GitServer, Path], open_checkouts: OpenCheckouts
) -> None:
    server, _ = secure
    server.repository().commit({"a": "1"})
    ref = GitRef(server.url_of(), trusted=True, auth=GitAuth(token_env="TOKEN"))
    async with open_checkouts(TOKEN=CANARY) as checkouts:
        with pytest.raises(DicodeError, match="certificate cannot be verified"):
            await checkouts.latest(ref)
        assert reason(checkouts, ref) == "BadCertificate"
    assert server.seen == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_to_another_host_is_not_followed(
    status: int, git: GitServer, open_checkouts: OpenCheckouts, tmp_path: Path
) -> None:
    git.token = CANARY
    with serving(tmp_path / "elsewhere") as other:
        other.repository().commit({"a": "stolen"})

        def away(exchange: Exchange) -> bool:
            exchange.answer(status, headers={"Location": other.url + exchange.path})
            return True

        git.fault = away
        ref = GitRef(git.url_of(), trusted=True, auth=GitAuth(token_env="TOKEN"))
        async with open_checkouts(TOKEN=CANARY) as checkouts:
            with pytest.raises(DicodeError, match="redirects to") as raised:
                await checkouts.latest(ref)
        assert raised.value.code is Code.FORBIDDEN
        assert other.seen == []


async def test_a_repository_that_was_renamed_on_its_host_is_followed(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    commit = git.repository("new.git").commit({"a": "1"})
    git.token = CANARY

    def renamed(exchange: Exchange) -> bool:
        if not exchange.path.startswith("/old.git"):
            return False
        to = exchange.path.replace("/old.git", "/new.git")
        exchange.answer(301, headers={"Location": git.url + to})
        return True

    git.fault = renamed
    ref = GitRef(git.url_of("old.git"), trusted=True, auth=GitAuth(token_env="TOKEN"))
    async with open_checkouts(TOKEN=CANARY) as checkouts:
        for _ in range(2):
            assert (await checkouts.latest(ref, now=True)).commit == commit


async def test_redirects_in_a_circle_end(git: GitServer, open_checkouts: OpenCheckouts) -> None:
    git.fault = lambda exchange: exchange.answer(302, headers={"Location": exchange.path}) or True
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="in a circle"):
            await checkouts.latest(GitRef(git.url_of(), trusted=True))
    assert len(git.seen) <= 5


async def test_a_page_for_people_is_no_repository(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.fault = lambda exchange: (
        exchange.answer(200, b"<h1>Log in</h1>", {"Content-Type": "text/html"}) or True
    )
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="there is no git repository"):
            await checkouts.latest(GitRef(git.url_of(), trusted=True))


@pytest.mark.parametrize(("status", "wanted"), [(500, "Unreachable"), (403, "AuthFailed")])
async def test_a_refusal_of_the_remote_has_its_reason(
    status: int, wanted: str, git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.fault = lambda exchange: exchange.answer(status, CANARY.encode()) or True
    ref = GitRef(git.url_of(), trusted=True, auth=GitAuth(token_env="TOKEN"))
    async with open_checkouts(TOKEN=CANARY) as checkouts:
        with pytest.raises(DicodeError):
            await checkouts.latest(ref)
        assert reason(checkouts, ref) == wanted


async def test_a_remote_that_echoes_the_token_does_not_get_it_into_messages(
    git: GitServer, open_checkouts: OpenCheckouts, caplog: pytest.LogCaptureFixture
) -> None:
    kind = {"Content-Type": "application/x-git-upload-pack-advertisement"}

    def echo(exchange: Exchange) -> bool:
        said = f"ERR no entry for {CANARY} {exchange.headers['Authorization'].split()[1]}\n"
        line = f"{len(said) + 4:04x}{said}".encode()
        exchange.answer(200, b"001e# service=git-upload-pack\n0000" + line + b"0000", kind)
        return True

    git.fault = echo
    ref = GitRef(git.url_of(), trusted=True, auth=GitAuth(token_env="TOKEN"))
    caplog.set_level(logging.DEBUG)
    async with open_checkouts(TOKEN=CANARY) as checkouts:
        with pytest.raises(DicodeError) as raised:
            await checkouts.latest(ref)
        told = str(raised.value.as_dict()) + str(checkouts.trouble(ref)) + caplog.text
    assert "the remote says" in told
    assert CANARY not in told
    assert "Z2l0Onr" not in told
    assert "Basic" not in told


async def test_a_token_is_in_no_command_line_environment_or_file(
    git: GitServer, open_checkouts: OpenCheckouts, tmp_path: Path
) -> None:
    git.repository().commit({"a": "1"})
    git.token = CANARY
    release = threading.Event()
    arrived = threading.Event()

    def held(exchange: Exchange) -> bool:
        arrived.set()
        release.wait(20)
        return False

    git.fault = held
    ref = GitRef(git.url_of(), trusted=True, auth=GitAuth(token_env="TOKEN"))
    async with open_checkouts(TOKEN=CANARY) as checkouts:
        asking = asyncio.ensure_future(checkouts.latest(ref))
        await until(arrived.is_set)
        shown = [_processes("cmdline"), _processes("environ"), _files(tmp_path / "data")]
        release.set()
        await asking
        shown.append(_files(tmp_path / "data"))
    for text in shown:
        assert CANARY.encode() not in text
    assert b"sources.git.worker" in shown[0]


def _processes(what: str) -> bytes:
    """Read a file of every process below this one."""
    found = b""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                found += (folder / what).read_bytes()
            except OSError:
                continue
    return found


def _files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_one_slow_remote_does_not_hold_up_another(
    git: GitServer, open_checkouts: OpenCheckouts, tmp_path: Path
) -> None:
    release = threading.Event()
    git.fault = lambda exchange: release.wait(20) and False
    with serving(tmp_path / "quick") as quick:
        quick.repository().commit({"a": "1"})
        async with open_checkouts() as checkouts:
            slow = asyncio.ensure_future(checkouts.latest(GitRef(git.url_of(), trusted=True)))
            assert (await checkouts.latest(GitRef(quick.url_of(), trusted=True))).commit
            assert not slow.done()
            release.set()
            await asyncio.wait([slow])
            assert isinstance(slow.exception(), DicodeError)


async def test_a_worker_that_is_killed_is_replaced(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    repository.commit({"a": "1"})
    ref = GitRef(git.url_of(), trusted=True)
    async with open_checkouts() as checkouts:
        good = await checkouts.latest(ref)
        (worker,) = _workers()
        os.kill(worker, signal.SIGKILL)
        await until(lambda: worker not in _workers())
        assert (await checkouts.latest(ref)) == good
        commit = repository.commit({"a": "2"})
        assert (await checkouts.latest(ref, now=True)).commit == commit
    assert _workers() == []


async def test_work_of_a_worker_that_is_killed_is_done_by_the_next(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    arrived, release = threading.Event(), threading.Event()

    def held(exchange: Exchange) -> bool:
        arrived.set()
        release.wait(20)
        return False

    git.fault = held
    ref = GitRef(git.url_of(), trusted=True)
    async with open_checkouts() as checkouts:
        asking = asyncio.ensure_future(checkouts.latest(ref))
        await until(arrived.is_set)
        (worker,) = _workers()
        os.kill(worker, signal.SIGKILL)
        release.set()
        assert (await asking).commit


def _workers() -> list[int]:
    """Give the git workers that this process started."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                command = (folder / "cmdline").read_bytes()
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if b"sources.git.worker" in command and int(parent) == os.getpid():
                found.append(int(folder.name))
    return found
