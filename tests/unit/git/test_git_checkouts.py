"""Following a repository on a real git server."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from githouse import OpenCheckouts

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import GitAuth, GitRef, Revision
from dicode_mcp.sources.git import mirror as mirrors
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.sources.git.jobs import Access, Bounds, Want
from dicode_mcp.sources.git.remote import Reach, parse
from dicode_mcp.sources.git.removal import remove
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.gitserver import GitServer
from dicode_mcp.testing.waiting import until

TASK = "name: hello\nruntime: python\ntrigger: {manual: true}\n"


def ref_of(git: GitServer, **fields: object) -> GitRef:
    return GitRef(git.url_of(), trusted=True, **fields)  # pyright: ignore[reportArgumentType]


def files(revision: Revision) -> dict[str, str]:
    """Give the text of every file of a revision."""
    return {
        str(path.relative_to(revision.root)): path.read_text()
        for path in sorted(revision.root.rglob("*"))
        if path.is_file()
    }


def same_file(first: Path, second: Path, name: str) -> bool:
    return (first / name).samefile(second / name)


def reason(checkouts: GitCheckouts, ref: GitRef) -> str | None:
    trouble = checkouts.trouble(ref)
    return trouble.reason if trouble else None


async def test_a_branch_is_brought_with_its_files_and_its_commit(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    commit = git.repository().commit(
        {"hello/task.yaml": TASK, "hello/task.py": "print(1)\n", "run.sh": "#!/bin/sh\n"},
        message="Say hello\n\nbody",
        author="Ada Lovelace <ada@example.org>",
        executable=frozenset({"run.sh"}),
    )
    async with open_checkouts() as checkouts:
        revision = await checkouts.latest(ref_of(git))
    assert files(revision) == {
        "hello/task.py": "print(1)\n",
        "hello/task.yaml": TASK,
        "run.sh": "#!/bin/sh\n",
    }
    assert revision.commit == commit
    assert revision.commit_info is not None
    assert revision.commit_info.author == "Ada Lovelace <ada@example.org>"
    assert revision.commit_info.subject == "Say hello"
    assert revision.commit_info.at_ms == 1_700_000_001_000
    assert stat.S_IMODE((revision.root / "run.sh").stat().st_mode) == 0o555
    assert stat.S_IMODE((revision.root / "hello/task.py").stat().st_mode) == 0o444
    assert stat.S_IMODE((revision.root / "hello").stat().st_mode) == 0o555


async def test_an_earlier_revision_stays_as_it_was_beside_the_newer(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    repository.commit({"a/task.yaml": "one", "b/task.yaml": "same"})
    async with open_checkouts() as checkouts:
        first = await checkouts.latest(ref_of(git))
        repository.commit({"a/task.yaml": "two", "c/task.yaml": "new"})
        second = await checkouts.latest(ref_of(git), now=True)
    assert files(first) == {"a/task.yaml": "one", "b/task.yaml": "same"}
    assert files(second) == {"a/task.yaml": "two", "b/task.yaml": "same", "c/task.yaml": "new"}


async def test_only_changed_folders_are_written_the_others_are_shared(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    repository.commit({f"deep/t{i}/task.yaml": str(i) for i in range(20)})
    async with open_checkouts() as checkouts:
        first = await checkouts.latest(ref_of(git))
        repository.commit({"deep/t3/task.yaml": "other"})
        second = await checkouts.latest(ref_of(git), now=True)
    same = [i for i in range(20) if same_file(first.root, second.root, f"deep/t{i}/task.yaml")]
    assert same == [i for i in range(20) if i != 3]
    assert first.trees is not None
    assert second.trees is not None
    assert first.trees["deep/t1"] == second.trees["deep/t1"]
    assert first.trees["deep/t3"] != second.trees["deep/t3"]
    assert set(second.trees) == {"", "deep", *(f"deep/t{i}" for i in range(20))}


async def test_a_moved_folder_is_shared_from_where_it_was(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    repository.commit({"old/x/task.yaml": "x", "old/x/in/data": "d", "keep": "k"})
    async with open_checkouts() as checkouts:
        first = await checkouts.latest(ref_of(git))
        repository.commit({"old": None, "new/x/task.yaml": "x", "new/x/in/data": "d"})
        second = await checkouts.latest(ref_of(git), now=True)
    assert files(second) == {"keep": "k", "new/x/in/data": "d", "new/x/task.yaml": "x"}
    assert (first.root / "old/x/in/data").samefile(second.root / "new/x/in/data")
    assert second.trees is not None
    assert set(second.trees) == {"", "new", "new/x", "new/x/in"}


async def test_history_that_was_rewritten_is_followed(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    repository.commit({"a/task.yaml": "one"})
    repository.commit({"a/task.yaml": "two"})
    async with open_checkouts() as checkouts:
        await checkouts.latest(ref_of(git))
        forced = repository.commit({"z/task.yaml": "anew"}, parent=None)
        revision = await checkouts.latest(ref_of(git), now=True)
    assert revision.commit == forced
    assert files(revision) == {"z/task.yaml": "anew"}


@pytest.mark.parametrize("message", [None, "a tag with an object of its own"])
async def test_a_tag_is_followed_when_it_moves(
    git: GitServer, open_checkouts: OpenCheckouts, message: str | None
) -> None:
    repository = git.repository()
    first = repository.commit({"a": "one"})
    repository.tag("v1", first, message=message)
    second = repository.commit({"a": "two"})
    async with open_checkouts() as checkouts:
        revision = await checkouts.latest(ref_of(git, tag="v1"))
        assert (revision.commit, files(revision)) == (first, {"a": "one"})
        repository.tag("v1", second, message=message and f"{message}, moved")
        revision = await checkouts.latest(ref_of(git, tag="v1"), now=True)
        assert (revision.commit, files(revision)) == (second, {"a": "two"})


async def test_an_older_commit_can_be_brought_and_its_remote_is_not_asked_again(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    old = repository.commit({"a": "old"})
    repository.commit({"a": "new"})
    async with open_checkouts() as checkouts:
        revision = await checkouts.latest(ref_of(git, commit=old))
        assert files(revision) == {"a": "old"}
        asked = len(git.seen)
        await checkouts.latest(ref_of(git, commit=old), now=True)
        assert len(git.seen) == asked


async def test_a_commit_that_is_not_there_says_so(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    ref = ref_of(git, commit="1" * 40)
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="there is no commit 1111"):
            await checkouts.latest(ref)
        assert reason(checkouts, ref) == "NoSuchCommit"


async def test_an_unknown_branch_says_so_and_the_other_goes_on(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    lost = ref_of(git, branch="nope")
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="there is no branch nope") as raised:
            await checkouts.latest(lost)
        assert raised.value.code is Code.NOT_FOUND
        assert reason(checkouts, lost) == "NoSuchBranch"
        assert (await checkouts.latest(ref_of(git))).commit
        assert reason(checkouts, ref_of(git)) is None


async def test_a_missing_repository_says_so(git: GitServer, open_checkouts: OpenCheckouts) -> None:
    ref = GitRef(f"{git.url}/nothing.git", trusted=True)
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="there is no git repository"):
            await checkouts.latest(ref)
        assert reason(checkouts, ref) == "NotARepository"


async def test_a_restart_without_the_remote_gives_the_last_good_revision_at_once(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a/task.yaml": "good"})
    async with open_checkouts() as checkouts:
        before = await checkouts.latest(ref_of(git))
    git.fault = lambda exchange: exchange.drop()
    asked = len(git.seen)
    async with open_checkouts() as checkouts:
        after = await checkouts.latest(ref_of(git))
        assert (after, files(after)) == (before, {"a/task.yaml": "good"})
        assert len(git.seen) == asked
        assert checkouts.trouble(ref_of(git)) is None
        late = await checkouts.latest(ref_of(git), now=True)
        assert late == before
        assert reason(checkouts, ref_of(git)) == "Unreachable"


async def test_a_checkout_that_somebody_removed_is_made_again_without_the_remote(
    git: GitServer, open_checkouts: OpenCheckouts, tmp_path: Path
) -> None:
    git.repository().commit({"a/task.yaml": "good"})
    async with open_checkouts() as checkouts:
        before = await checkouts.latest(ref_of(git))
    remove(tmp_path / "data/checkouts")
    git.fault = lambda exchange: exchange.drop()
    async with open_checkouts() as checkouts:
        assert checkouts.current(ref_of(git)) is None
        after = await checkouts.latest(ref_of(git))
        assert (after, files(after)) == (before, {"a/task.yaml": "good"})


async def test_a_mirror_that_was_damaged_is_fetched_anew(
    git: GitServer, open_checkouts: OpenCheckouts, tmp_path: Path
) -> None:
    repository = git.repository()
    repository.commit({f"t{i}": "x" * 500 for i in range(10)})
    async with open_checkouts() as checkouts:
        await checkouts.latest(ref_of(git))
    (pack,) = (tmp_path / "data/git").glob("*/mirror.git/objects/pack/*.pack")
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:100])
    repository.commit({"t1": "y"})
    async with open_checkouts() as checkouts:
        revision = await checkouts.latest(ref_of(git), now=True)
        assert files(revision)["t1"] == "y"
        assert checkouts.trouble(ref_of(git)) is None


async def test_many_who_ask_at_once_are_served_by_two_pulls(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    async with open_checkouts() as checkouts:
        await checkouts.latest(ref_of(git))
        git.seen.clear()
        await asyncio.gather(*(checkouts.latest(ref_of(git), now=True) for _ in range(30)))
    assert len(_pulls(git)) <= 2


def _pulls(git: GitServer) -> list[str]:
    return [seen.path for seen in git.seen if "info/refs" in seen.path]


async def test_a_push_is_seen_by_the_poll_and_wakes_whoever_watches(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    repository.commit({"a": "1"})
    clock = FakeClock()
    async with open_checkouts(clock=clock) as checkouts:
        await checkouts.latest(ref_of(git))
        async with _watching(checkouts, ref_of(git), clock) as woken:
            commit = repository.commit({"a": "2"})
            clock.advance(32)
            await until(woken.done)
        revision = checkouts.current(ref_of(git))
        assert revision is not None
        assert revision.commit == commit


async def test_a_poll_with_nothing_new_is_one_request_and_wakes_nobody(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    clock = FakeClock()
    async with open_checkouts(clock=clock) as checkouts:
        await checkouts.latest(ref_of(git))
        async with _watching(checkouts, ref_of(git), clock) as woken:
            requests: list[int] = []
            for _ in range(3):
                git.seen.clear()
                clock.advance(32)
                await clock.asleep(2)
                requests.append(len(git.seen))
            # The first asks how the remote speaks.
            assert requests == [2, 1, 1]
            assert not woken.done()


async def test_those_who_watch_share_one_poll_at_the_smallest_interval(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    clock = FakeClock()
    async with open_checkouts(clock=clock) as checkouts:
        await checkouts.latest(ref_of(git))
        async with (
            _watching(checkouts, ref_of(git, poll_interval_s=300.0), clock),
            _watching(checkouts, ref_of(git, poll_interval_s=20.0), clock),
            _watching(checkouts, ref_of(git, poll_interval_s=60.0), clock),
        ):
            git.seen.clear()
            for _ in range(6):
                clock.advance(21)
                await clock.asleep(2)
        assert len(git.seen) == 7


@asynccontextmanager
async def _watching(
    checkouts: GitCheckouts, ref: GitRef, clock: FakeClock
) -> AsyncGenerator[asyncio.Future[None]]:
    """Watch a ref, its poll asleep; the future is done at the first wake."""
    watch = checkouts.watch(ref)
    woken = asyncio.ensure_future(_first(watch))
    try:
        await asyncio.sleep(0)  # The watching has begun.
        await asyncio.sleep(0)  # A poll that was asleep has heard of it.
        # The poll, and the loop that removes checkouts.
        await clock.asleep(2)
        yield woken
    finally:
        woken.cancel()
        await asyncio.wait([woken])


async def _first(watch: AsyncIterator[None]) -> None:
    await anext(watch)


async def test_a_push_hint_pulls_at_once_and_a_burst_is_one_or_two_pulls(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    repository.commit({"a": "1"})
    clock = FakeClock()
    async with open_checkouts(clock=clock) as checkouts:
        await checkouts.latest(ref_of(git))
        async with _watching(checkouts, ref_of(git), clock) as woken:
            commit = repository.commit({"a": "2"})
            git.seen.clear()
            assert [await checkouts.push_hint(git.url_of()) for _ in range(20)] == [1] * 20
            await until(woken.done)
            await clock.asleep(2)
            assert await checkouts.push_hint("https://example.org/other.git") == 0
        revision = checkouts.current(ref_of(git))
        assert revision is not None
        assert revision.commit == commit
        assert len(_pulls(git)) <= 2


async def test_a_remote_that_is_down_is_shown_and_asked_less_and_less_often(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    clock = FakeClock()
    async with open_checkouts(clock=clock) as checkouts:
        good = await checkouts.latest(ref_of(git))
        git.fault = lambda exchange: exchange.drop()
        asked: list[float] = [clock.monotonic()]
        async with _watching(checkouts, ref_of(git), clock) as woken:
            while len(asked) < 8:
                before = len(git.seen)
                clock.advance(10)
                await clock.asleep(2)
                if len(git.seen) > before:
                    asked.append(clock.monotonic())
            assert woken.done()
        assert reason(checkouts, ref_of(git)) == "Unreachable"
        assert checkouts.current(ref_of(git)) == good
        gaps = [late - early for early, late in pairwise(asked)]
        assert gaps[0] <= 40
        assert max(gaps) <= 310
        assert gaps[-1] >= 150
        git.fault = None
        assert (await checkouts.latest(ref_of(git), now=True)) == good
        assert checkouts.trouble(ref_of(git)) is None


async def test_a_refused_token_is_told_once_and_the_remote_is_left_in_peace(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    git.token = "right"
    ref = ref_of(git, auth=GitAuth(token_env="TOKEN"))
    clock = FakeClock()
    async with open_checkouts(clock=clock, TOKEN="wr0ng-t0ken-canary") as checkouts:
        for _ in range(5):
            with pytest.raises(DicodeError) as raised:
                await checkouts.latest(ref)
            assert raised.value.code is Code.UNAUTHENTICATED
            assert "wr0ng-t0ken-canary" not in str(raised.value.as_dict())
        assert len(git.seen) == 1
        assert reason(checkouts, ref) == "AuthFailed"
        clock.advance(100)
        with pytest.raises(DicodeError):
            await checkouts.latest(ref)
        assert len(git.seen) == 1


async def test_a_right_token_is_sent_as_user_git_and_only_with_requests(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    git.token = "s3cret-canary"
    ref = ref_of(git, auth=GitAuth(token_env="TOKEN"))
    async with open_checkouts(TOKEN="s3cret-canary") as checkouts:
        assert (await checkouts.latest(ref)).commit
    assert all(seen.authorization for seen in git.seen)


async def test_a_token_whose_variable_is_not_set_is_asked_for_by_name(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    ref = ref_of(git, auth=GitAuth(token_env="MY_TOKEN"))
    async with open_checkouts() as checkouts:
        with pytest.raises(DicodeError, match="MY_TOKEN") as raised:
            await checkouts.latest(ref)
    assert raised.value.code is Code.SECRET_MISSING
    assert git.seen == []


async def test_who_has_no_token_does_not_see_what_another_brought(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    git.repository().commit({"a": "1"})
    git.token = "right"
    async with open_checkouts(TOKEN="right") as checkouts:
        await checkouts.latest(ref_of(git, auth=GitAuth(token_env="TOKEN")))
        assert checkouts.current(ref_of(git)) is None
        with pytest.raises(DicodeError, match="wants credentials"):
            await checkouts.latest(ref_of(git))


async def test_checkouts_that_nobody_uses_are_removed_the_newest_and_the_kept_stay(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    clock = FakeClock()
    revisions: list[Revision] = []
    async with open_checkouts(clock=clock) as checkouts:
        for i in range(4):
            repository.commit({"a": str(i)})
            revisions.append(await checkouts.latest(ref_of(git), now=True))
        clock.advance(1000)
        checkouts.keep([revisions[1].commit or ""])
        await until(lambda: not revisions[0].root.exists())
        await until(lambda: not revisions[2].root.exists())
        assert files(revisions[1]) == {"a": "1"}
        assert files(revisions[3]) == {"a": "3"}
        newest = await checkouts.latest(ref_of(git))
        assert newest == revisions[3]


async def test_a_shallow_source_brings_no_more_history_than_asked(
    git: GitServer, open_checkouts: OpenCheckouts, tmp_path: Path
) -> None:
    repository = git.repository()
    for i in range(5):
        repository.commit({"a": str(i)})
    async with open_checkouts() as checkouts:
        first = await checkouts.latest(ref_of(git, depth=1))
        repository.commit({"a": "next", "b": "more"})
        second = await checkouts.latest(ref_of(git, depth=1), now=True)
    assert files(first) == {"a": "4"}
    assert files(second) == {"a": "next", "b": "more"}
    (shallow,) = (tmp_path / "data/git").glob("*/mirror.git/shallow")
    assert shallow.read_text().strip()


async def test_a_local_repository_is_read_by_its_file_url_when_that_is_allowed(
    git: GitServer, open_checkouts: OpenCheckouts
) -> None:
    repository = git.repository()
    commit = repository.commit({"a/task.yaml": "x"})
    ref = GitRef(f"file://{repository.path}", trusted=True)
    async with open_checkouts() as checkouts:
        revision = await checkouts.latest(ref)
        assert (revision.commit, files(revision)) == (commit, {"a/task.yaml": "x"})
        repository.commit({"a/task.yaml": "y"})
        assert files(await checkouts.latest(ref, now=True)) == {"a/task.yaml": "y"}
        with pytest.raises(DicodeError, match="there is no commit 1111"):
            await checkouts.latest(replace(ref, commit="1" * 40))
    async with open_checkouts(allow_local=False) as checkouts:
        again = await checkouts.latest(ref, now=True)
        assert files(again) == {"a/task.yaml": "y"}
        assert reason(checkouts, ref) == "NotTrusted"


async def test_a_checkout_that_was_not_on_the_disk_for_sure_is_made_anew(
    git: GitServer, open_checkouts: OpenCheckouts, tmp_path: Path
) -> None:
    repository = git.repository()
    repository.commit({"a": "old"})
    async with open_checkouts() as checkouts:
        await checkouts.latest(ref_of(git))
    (state,) = (tmp_path / "data/git").glob("*/state.json")
    before = state.read_bytes()
    repository.commit({"a": "new"})
    async with open_checkouts() as checkouts:
        revision = await checkouts.latest(ref_of(git), now=True)
    # As after a power cut: the folder is there, its content is not, and nothing remembers it.
    state.write_bytes(before)
    (revision.root / "a").chmod(0o644)
    (revision.root / "a").write_text("")
    async with open_checkouts() as checkouts:
        assert files(await checkouts.latest(ref_of(git))) == {"a": "old"}
        assert files(await checkouts.latest(ref_of(git), now=True)) == {"a": "new"}


def test_a_mirror_of_many_fetches_is_joined_and_loses_nothing(
    git: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = git.repository()
    mirror = tmp_path / "mirror"
    (tmp_path / "out").mkdir()
    remote, access = parse(git.url_of()), Access(git.url_of(), Reach.ANY)
    bounds = Bounds(1000, 2**20, 2**24, 32)
    monkeypatch.setattr(mirrors, "_MOST_PACKS", 3)
    commits: list[str] = []
    for i in range(6):
        commits.append(repository.commit({"a": str(i), f"f{i}": "x"}))
        mirrors.fetch(remote, access, Want("branch", "main"), bounds, mirror, None)
    packs = mirror / "objects/pack"
    assert len(list(packs.glob("*.pack"))) == 6
    mirrors.join_packs(mirror)
    assert len(list(packs.glob("*.pack"))) == 1
    for i, commit in enumerate(commits):
        good = mirrors.checkout(mirror, commit, tmp_path / "out", bounds, None)
        assert (tmp_path / "out" / good.tree / "a").read_text() == str(i)
