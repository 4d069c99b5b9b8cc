"""Repositories made to do harm: nothing is written outside the checkouts, and no link is made."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from githouse import OpenCheckouts

from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import GitLimits, GitRef
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.sources.git.jobs import Access, Bounds, Job, Want
from dicode_mcp.sources.git.process import GitWorker
from dicode_mcp.sources.git.remote import Reach
from dicode_mcp.testing.gitserver import Exchange, GitServer, Repository
from dicode_mcp.testing.waiting import running

FILE, EXECUTABLE, FOLDER, LINK, MODULE = "100644", "100755", "40000", "120000", "160000"


@dataclass(frozen=True)
class Evil:
    """A repository, and what is to become of it: refused for a reason, or parts left out."""

    make: Callable[[Repository], object]
    reason: str | None = None
    left: tuple[str, ...] = ()
    limits: GitLimits | None = None


def _names(*names: bytes) -> Callable[[Repository], object]:
    def make(repository: Repository) -> None:
        blob = repository.blob(b"evil")
        inner = repository.tree((FILE, b"x", blob))
        good = repository.tree((FILE, b"task.yaml", blob))
        entries = [(FOLDER, name, inner) for name in names]
        repository.commit_tree(repository.tree((FOLDER, b"good", good), *entries))

    return make


def _entry(mode: str, name: bytes, text: bytes) -> Callable[[Repository], object]:
    def make(repository: Repository) -> None:
        blob = repository.blob(text)
        good = repository.tree((FILE, b"task.yaml", blob))
        sha = "1" * 40 if mode == MODULE else blob
        repository.commit_tree(repository.tree((FOLDER, b"good", good), (mode, name, sha)))

    return make


def _bomb(repository: Repository) -> None:
    """Write ten to the power of six files with eight objects."""
    entry = (FILE, repository.blob(b"x"))
    mode, sha = entry
    for _ in range(6):
        sha = repository.tree(*((mode, b"f%d" % i, sha) for i in range(10)))
        mode = FOLDER
    repository.commit_tree(sha)


def _deep(repository: Repository) -> None:
    sha = repository.tree((FILE, b"x", repository.blob(b"x")))
    for _ in range(3000):
        sha = repository.tree((FOLDER, b"d", sha))
    repository.commit_tree(sha)


def _link_then_folder(repository: Repository) -> None:
    """Write through a link: first the link, then a folder of the same name with a file in it."""
    link = repository.blob(b"/tmp")
    inner = repository.tree((FILE, b"pwned", repository.blob(b"evil")))
    repository.commit_tree(repository.tree((LINK, b"a", link), (FOLDER, b"a", inner)))


def _twice(repository: Repository) -> None:
    one, two = repository.blob(b"1"), repository.blob(b"2")
    repository.commit_tree(repository.tree((FILE, b"a", one), (FILE, b"a", two)))


def _malformed(repository: Repository) -> None:
    repository.commit_tree(repository.write("tree", b"100644 a\0short"))


def _file_as_folder(repository: Repository) -> None:
    repository.commit_tree(repository.tree((FOLDER, b"a", repository.blob(b"x"))))


def _missing(repository: Repository) -> None:
    repository.commit_tree(repository.tree((FILE, b"a", "2" * 40)))


def _big(size: int) -> Callable[[Repository], object]:
    return lambda repository: repository.commit({"big": b"\0" * size, "good/task.yaml": "x"})


def _many(repository: Repository) -> None:
    repository.commit({f"f{i}": bytes([i]) * 1000 for i in range(50)})


COLLECTION = {
    "compiled Python": Evil(
        lambda repository: repository.commit_tree(
            repository.tree(
                (FOLDER, b"__pycache__", repository.tree((FILE, b"x.pyc", repository.blob(b"x")))),
                (FILE, b"y.pyc", repository.blob(b"x")),
            )
        ),
        left=("__pycache__", "y.pyc"),
    ),
    "a symbolic link": Evil(_entry(LINK, b"link", b"/etc/passwd"), left=("link",)),
    "a submodule": Evil(_entry(MODULE, b"sub", b""), left=("sub",)),
    "a socket": Evil(_entry("140000", b"sock", b""), left=("sock",)),
    "a name that is no utf-8": Evil(_names(b"caf\xe9"), left=("caf\\xe9",)),
    "a name with a line feed": Evil(_names(b"a\nb"), left=("a\\u000ab",)),
    "a name that reads backwards": Evil(_names("a\u202egpj".encode()), left=("a\\u202egpj",)),
    "a name with a backslash": Evil(_names(b"a\\b"), left=("a\\b",)),
    "a name of 300 characters": Evil(_names(b"n" * 300), left=("n" * 80,)),
    "dot": Evil(_names(b"."), "Hostile"),
    "dot dot": Evil(_names(b".."), "Hostile"),
    "a path": Evil(_names(b"../../x"), "Hostile"),
    "an absolute path": Evil(_names(b"/etc/x"), "Hostile"),
    "no name": Evil(_names(b""), "Unreachable|Hostile"),
    ".git": Evil(_names(b".git"), "Hostile"),
    ".GIT": Evil(_names(b".GIT"), "Hostile"),
    "git~1": Evil(_names(b"git~1"), "Hostile"),
    ".git with a space": Evil(_names(b".git "), "Hostile"),
    ".git as a stream": Evil(_names(b".git::$INDEX_ALLOCATION"), "Hostile"),
    ".git with a hidden character": Evil(_names(".g\u200cit".encode()), "Hostile"),
    ".git behind a backslash": Evil(_names(b"a\\.git"), "Hostile"),
    "a link and a folder of one name": Evil(_link_then_folder, left=("a",)),
    "a name that stands twice": Evil(_twice, "Hostile"),
    "a tree that is cut off": Evil(_malformed, "Unreachable|Hostile|Damaged"),
    "a file that is called a folder": Evil(_file_as_folder, "Unreachable|Hostile|Damaged"),
    "an object that is not there": Evil(_missing, "Unreachable|Damaged"),
    "a bomb of trees": Evil(_bomb, "TooLarge"),
    "folders 3,000 deep": Evil(_deep, "TooLarge"),
    "a file over the limit": Evil(
        _big(2**20), "TooLarge", limits=GitLimits(max_file_size=2**19)
    ),
    "files over the limit in all": Evil(
        _many, "TooLarge", limits=GitLimits(max_total_size=30_000)
    ),
    "too many files": Evil(_many, "TooLarge", limits=GitLimits(max_files=40)),
}  # fmt: skip


def _outside(tmp_path: Path) -> dict[str, bytes | str]:
    """Give everything below the test's folder that is neither served nor the git rooms' own."""
    own = {tmp_path / "served", tmp_path / "data/git", tmp_path / "data/checkouts"}
    found: dict[str, bytes | str] = {}
    for where, folders, names in os.walk(tmp_path):
        folders[:] = [name for name in folders if Path(where, name) not in own]
        for name in (*folders, *names):
            path = Path(where, name)
            found[str(path)] = path.read_bytes() if path.is_file() else "folder"
    return found


def _links(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_symlink()]


async def _met(checkouts: GitCheckouts, git: GitServer, name: str, evil: Evil) -> str:
    """Fetch a repository of the collection; say what is not as it should be."""
    repository = f"evil-{len(list(git.root.iterdir()))}.git"
    evil.make(git.repository(repository))
    ref = GitRef(git.url_of(repository), trusted=True, limits=evil.limits or GitLimits())
    try:
        revision = await checkouts.latest(ref)
    except DicodeError as error:
        wanted = (evil.reason or "").split("|")
        return "" if error.data["reason"] in wanted else f"{name}: {error.as_dict()}"
    count, told = checkouts.skipped(ref)
    told = tuple(line.split(": ")[0] for line in told)
    there = {path.name for path in revision.root.iterdir()}
    well = evil.reason is None and told == evil.left and count == len(told)
    return "" if well and there <= {"good", "a"} else f"{name}: {told} left out of {there}"


async def test_hostile_repositories_write_nothing_outside_and_make_no_link(
    git: GitServer, open_checkouts: OpenCheckouts, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "canary").write_text("untouched")
    before = _outside(tmp_path)
    async with open_checkouts() as checkouts:
        wrong = [await _met(checkouts, git, name, evil) for name, evil in COLLECTION.items()]
        assert [text for text in wrong if text] == []
        git.repository("honest.git").commit({"a/task.yaml": "fine"})
        good = await checkouts.latest(GitRef(git.url_of("honest.git"), trusted=True))
        assert (good.root / "a/task.yaml").read_text() == "fine"
    assert _outside(tmp_path) == before
    assert _links(tmp_path / "data/checkouts") == []
    assert not list((tmp_path / "data/checkouts").rglob(".new-*"))


async def test_a_bad_commit_keeps_the_last_good_tree_and_is_not_fetched_again(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    repository.commit({"good/task.yaml": "x"})
    ref = GitRef(git.url_of(), trusted=True)
    async with open_checkouts() as checkouts:
        good = await checkouts.latest(ref)
        _names(b"..")(repository)
        assert await checkouts.latest(ref, now=True) == good
        trouble = checkouts.trouble(ref)
        assert trouble is not None
        assert trouble.reason == "Hostile"
        assert "'..'" in trouble.message
        mended = repository.commit({"good/task.yaml": "y"}, parent=good.commit)
        after = await checkouts.latest(ref, now=True)
        assert after.commit == mended
        assert checkouts.trouble(ref) is None


async def test_a_pack_that_is_cut_off_is_refused_and_the_next_try_is_well(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({f"f{i}": os.urandom(2000) for i in range(30)})
    ref = GitRef(git.url_of(), trusted=True)

    def cut(exchange: Exchange) -> bool:
        if exchange.command == "GET":
            return False
        status, headers, body = exchange.backend(exchange.body, authorised=False)
        if b"packfile" in body[:200] or len(body) > 10_000:
            body = body[: len(body) // 2]
        exchange.answer(status, body, headers)
        return True

    git.fault = cut
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError):
            await checkouts.latest(ref)
        trouble = checkouts.trouble(ref)
        assert trouble is not None
        assert trouble.reason in ("Hostile", "Unreachable")
        git.fault = None
        assert (await checkouts.latest(ref, now=True)).commit


async def test_an_answer_that_is_not_gits_is_told_as_that(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    kind = {"Content-Type": "application/x-git-upload-pack-advertisement"}
    bodies = [b"", b"zzzz", b"0000", b"\xff" * 5000, b"0007ERR", b"0008NAK\n0000"]
    bodies.append(b"001e# service=git-upload-pack\n0000fffe")
    bodies.append(b"001e# service=git-upload-pack\n0000000eversion 2\n0000")
    ref = GitRef(git.url_of(), trusted=True)
    async with open_checkouts() as checkouts:
        for body in bodies:
            git.fault = lambda exchange, body=body: exchange.answer(200, body, kind) or True
            with pytest.raises(DicodeError) as raised:
                await checkouts.latest(ref, now=True)
            assert raised.value.data["reason"] in ("Hostile", "Unreachable", "NoSuchBranch"), body


async def test_a_job_gets_no_more_memory_than_it_may_have(git: GitServer, tmp_path: Path) -> None:
    _big(60 * 2**20)(git.repository())
    bounds = Bounds(1000, 2**30, 2**30, 32, memory=64 * 2**20)
    job = Job(
        "fetch",
        Access(git.url_of(), Reach.ANY),
        Want("branch", "main"),
        bounds,
        mirror=str(tmp_path / "mirror"),
        checkouts=str(tmp_path / "checkouts"),
    )
    worker = GitWorker(tmp_path / "worker", os.environ)
    async with running(worker.run()):
        answer = await worker.do(job)
        assert answer.failure is not None
        assert answer.failure.reason == "TooLarge"
        assert "64 MiB of memory" in answer.failure.message
        well = replace(job, bounds=replace(bounds, memory=2**30))
        assert (await worker.do(well)).good is not None


async def test_a_job_is_ended_at_its_deadline(git: GitServer, tmp_path: Path) -> None:
    git.repository().commit({"a": "1"})
    release = threading.Event()
    git.fault = lambda exchange: release.wait(20) and False
    job = Job(
        "ask",
        Access(git.url_of(), Reach.ANY),
        Want("branch", "main"),
        Bounds(1000, 2**20, 2**20, 32, deadline_s=0.3),
    )
    worker = GitWorker(tmp_path / "worker", os.environ)
    async with running(worker.run()):
        answer = await worker.do(job)
        release.set()
    assert answer.failure is not None
    assert "took more than 0.3 s" in answer.failure.message
