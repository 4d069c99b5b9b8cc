"""What a watched folder tells, through edits, deletions, limits and odd trees."""

import asyncio
import errno
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from dicode_mcp.conditions import ConditionType
from dicode_mcp.errors import DicodeError
from dicode_mcp.sources import watch as watch_module
from dicode_mcp.sources.inotify import Tree, TreeLost
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.sources.watch import Batch, Engine, Watch, WatchfilesTree, open_tree

ENGINES = [WatchfilesTree, *([open_tree] if sys.platform == "linux" else [])]
linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux")


class Listener:
    """Collects what an engine gives, until a path was seen."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.seen: set[Path] = set()

    def until(self, path: Path) -> None:
        for _ in range(100):
            if path in self.seen:
                return
            self.seen |= self.engine.wait(0.2) or set()
        raise AssertionError(f"{path} was not told; told: {sorted(self.seen)}")

    def until_lost(self) -> None:
        for _ in range(100):
            self.seen |= self.engine.wait(0.2) or set()


@contextmanager
def listening(make: Callable[[Path], Engine], root: Path) -> Generator[Listener, None, None]:
    engine = make(root)
    try:
        yield Listener(engine)
    finally:
        engine.close()


@pytest.fixture(params=ENGINES, ids=lambda make: make.__name__)
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "task.yaml").write_text("old")
    with listening(request.param, tmp_path) as found:
        yield found


def test_a_written_file_is_told(listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "a" / "task.yaml").write_text("new")
    listener.until(tmp_path / "a" / "task.yaml")


def test_a_file_replaced_by_a_rename_is_told(listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "a" / ".task.yaml.tmp").write_text("new")
    (tmp_path / "a" / ".task.yaml.tmp").rename(tmp_path / "a" / "task.yaml")
    listener.until(tmp_path / "a" / "task.yaml")
    assert tmp_path / "a" / ".task.yaml.tmp" not in listener.seen


def test_a_deleted_file_is_told(listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "a" / "task.yaml").unlink()
    listener.until(tmp_path / "a" / "task.yaml")


def test_a_file_in_a_new_nested_folder_is_told(listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    listener.until(tmp_path / "b")
    (tmp_path / "b" / "c" / "task.yaml").write_text("new")
    listener.until(tmp_path / "b" / "c" / "task.yaml")


def test_a_file_in_a_renamed_folder_is_told_by_its_new_name(
    listener: Listener, tmp_path: Path
) -> None:
    (tmp_path / "a").rename(tmp_path / "z")
    listener.until(tmp_path / "z")
    (tmp_path / "z" / "task.yaml").write_text("new")
    listener.until(tmp_path / "z" / "task.yaml")


def test_editor_leftovers_and_caches_are_not_told(listener: Listener, tmp_path: Path) -> None:
    for name in (".task.yaml.swp", "task.yaml~", "4913"):
        (tmp_path / "a" / name).write_text("noise")
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "x.bin").write_text("noise")
    (tmp_path / "a" / "last.txt").write_text("x")
    listener.until(tmp_path / "a" / "last.txt")
    assert listener.seen == {tmp_path / "a" / "last.txt"}


def test_a_root_that_goes_is_noticed(listener: Listener, tmp_path: Path) -> None:
    tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-elsewhere"))
    with pytest.raises(TreeLost):
        listener.until_lost()


def test_reading_files_wakes_nobody(listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "a" / "task.yaml").read_text()
    assert listener.engine.wait(0.1) == frozenset()


@linux
def test_a_link_out_of_the_tree_is_not_watched(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    with listening(open_tree, root) as listener:
        (outside / "x.txt").write_text("x")
        (root / "y.txt").write_text("y")
        listener.until(root / "y.txt")
        assert listener.seen == {root / "y.txt"}


@linux
def test_a_root_link_that_is_turned_elsewhere_is_noticed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    current = tmp_path / "current"
    current.symlink_to("one")
    with listening(open_tree, current) as listener:
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(current)
        with pytest.raises(TreeLost):
            listener.until_lost()


@linux
def test_a_file_being_written_is_told_once_when_it_is_closed(tmp_path: Path) -> None:
    with listening(open_tree, tmp_path) as listener:
        with (tmp_path / "x.txt").open("w") as file:
            file.write("half")
            file.flush()
            file.write(" and the rest")
        assert listener.engine.wait(5) == {tmp_path / "x.txt"}
        assert listener.engine.wait(0.1) == frozenset()


@linux
def test_more_folders_than_allowed_is_the_limit_error(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"d{number}").mkdir()
    with pytest.raises(OSError, match="more than 3 folders") as caught:
        Tree(tmp_path, lambda name, folder: False, folders=3)
    assert caught.value.errno == errno.ENOSPC


@linux
def test_a_closed_tree_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    open_tree(tmp_path).close()
    with pytest.raises(FileNotFoundError):
        open_tree(tmp_path / "missing")
    assert len(os.listdir("/proc/self/fd")) == before


async def next_of(batches: AsyncGenerator[Batch, None]) -> Batch:
    async with asyncio.timeout(20):
        return await anext(batches)


async def test_watching_begins_by_saying_that_anything_may_have_changed(tmp_path: Path) -> None:
    async with aclosing(Watch(tmp_path).batches()) as batches:
        assert await next_of(batches) is None
        (tmp_path / "x.txt").write_text("x")
        assert await next_of(batches) == {tmp_path / "x.txt"}


async def test_a_root_that_appears_later_is_watched_from_then_on(tmp_path: Path) -> None:
    root = tmp_path / "tasks"
    async with aclosing(Watch(root).batches()) as batches:
        first = asyncio.create_task(next_of(batches))
        await asyncio.sleep(0)
        assert not first.done()
        root.mkdir()
        assert await first is None
        (root / "x.txt").write_text("x")
        assert await next_of(batches) == {root / "x.txt"}


async def test_a_root_deleted_and_made_again_is_watched_again(tmp_path: Path) -> None:
    root = tmp_path / "tasks"
    root.mkdir()
    async with aclosing(Watch(root).batches()) as batches:
        assert await next_of(batches) is None
        root.rmdir()
        assert await next_of(batches) is None
        root.mkdir()
        assert await next_of(batches) is None
        (root / "x.txt").write_text("x")
        assert await next_of(batches) == {root / "x.txt"}


async def test_the_thread_ends_with_the_listening(tmp_path: Path) -> None:
    async with aclosing(Watch(tmp_path).batches()) as batches:
        await next_of(batches)
        assert any(t.name == "dicode-watch" for t in threading.enumerate())
    assert not any(t.name == "dicode-watch" for t in threading.enumerate())


async def test_a_reached_limit_turns_watching_into_looking_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "POLL_S", 0.01)
    monkeypatch.setattr(watch_module, "REOPEN_S", 0.03)
    refusals = 2

    def open_engine(root: Path) -> Engine:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open_tree(root)

    watch = Watch(tmp_path, open_engine)
    source = LocalSource("s", tmp_path, watch=watch)
    assert source.conditions() == ()
    async with aclosing(source.changes()) as batches:
        assert [await next_of(batches) for _ in range(4)] == [None] * 4
        (condition,) = source.conditions()
        assert (condition.type, condition.status) == (ConditionType.WATCHED, False)
        assert "max_user_watches" in condition.message
        while source.conditions():
            assert await next_of(batches) is None
        (tmp_path / "x.txt").write_text("x")
        while (batch := await next_of(batches)) is None:
            pass
        assert batch == {tmp_path / "x.txt"}


async def test_a_missing_folder_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    source = LocalSource("s", tmp_path / "tasks")
    with pytest.raises(DicodeError, match="does not exist") as caught:
        await source.fetch()
    assert caught.value.hint
    (tmp_path / "tasks").mkdir()
    assert (await source.fetch()).root == tmp_path / "tasks"


async def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text("x")
    with pytest.raises(DicodeError, match="is not a folder"):
        await LocalSource("s", tmp_path / "tasks").fetch()


def test_a_source_shows_where_it_is(tmp_path: Path) -> None:
    source = LocalSource("s", tmp_path, namespace="s")
    assert (source.name, source.kind, source.location, source.namespace) == (
        "s",
        "local",
        str(tmp_path),
        "s",
    )
