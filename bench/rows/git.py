"""Tasks from git: a push until the task is live, a poll with nothing new, a first start.

The remote is ``git http-backend`` on loopback, whose own time (some 8 ms a request) is in all
figures; the floors are git's own program, or a bare request, against the same remote.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Limit, Result, figure
from bench.folders import write_reports
from bench.house import House, serving
from bench.proc import memory
from bench.row import Plan, Row, Unmeasurable
from bench.wire import Line, line_to
from dicode_mcp.sources.git.jobs import Access, Bounds, Job, Want
from dicode_mcp.sources.git.process import GitWorker
from dicode_mcp.sources.git.remote import Reach
from dicode_mcp.testing import gitserver
from dicode_mcp.testing.gitserver import GitServer, Repository, run_git

_SECRET = "bench"
_SEEN_S = 60.0
_TASK = "src/report-00000"
_REST_S = 0.05


def measure(plan: Plan) -> Iterator[Result]:
    yield _poll(plan)
    for number in (1, 1_000) if plan.quick else (1, 1_000, 10_000):
        yield from _served(plan, number)


# ── A poll ───────────────────────────────────────────────────────────────────────────────────


def _poll(plan: Plan) -> Result:
    with gitserver.serving(plan.room / "polled") as git:
        git.repository().commit({"hello/task.yaml": "name: hello\n"})
        ours, floor = asyncio.run(_polls(plan, git))
    return Result(
        name="git.poll",
        what="a poll of one branch with nothing new, in the git worker",
        ours=figure("poll", "ms", ours),
        floor=figure("the same request alone, by http.client", "ms", floor),
        limits=(Limit("p50", "<=", 15),),
    )


async def _polls(plan: Plan, git: GitServer) -> tuple[list[float], list[float]]:
    job = Job(
        "ask",
        Access(git.url_of(), Reach.ANY),
        Want("branch", "main"),
        Bounds(1000, 2**20, 2**24, 32),
        at_once=True,
    )
    worker = GitWorker(plan.room / "worker", os.environ)
    running = asyncio.create_task(worker.run())
    ours: list[float] = []
    floor: list[float] = []
    try:
        for turn in range(plan.times(100, 20) + 1):
            began = time.perf_counter()
            answer = await worker.do(job)
            took = (time.perf_counter() - began) * 1000
            if answer.failure is not None:
                raise Unmeasurable(answer.failure.message)
            if turn:  # The first starts the worker.
                ours.append(took)
                floor.append(await asyncio.to_thread(_bare_poll, git))
            await asyncio.sleep(_REST_S)
    finally:
        running.cancel()
        await asyncio.wait([running])
    return ours, floor


def _bare_poll(git: GitServer) -> float:
    body = b"0014command=ls-refs\n0001001fref-prefix refs/heads/main\n0000"
    began = time.perf_counter()
    connection = http.client.HTTPConnection(git.url.removeprefix("http://"))
    headers = {
        "Content-Type": "application/x-git-upload-pack-request",
        "Git-Protocol": "version=2",
    }
    connection.request("POST", "/tasks.git/git-upload-pack", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if b"refs/heads/main" not in text:
        raise Unmeasurable(f"the bare request was answered {answer.status}")
    return (time.perf_counter() - began) * 1000


# ── A server on a repository of many tasks ───────────────────────────────────────────────────


def _served(plan: Plan, number: int) -> Iterator[Result]:
    room = plan.room / str(number)
    with gitserver.serving(room / "served") as git:
        repository = git.repository()
        repository.commit(_reports(room / "tasks", number))
        starts = [_started(git, room, number, turn) for turn in range(plan.times(3, 1))]
        with _house(git, room, number, "kept") as house:
            after_start = memory(house.pid).rss
            workers = _worker_memory(house.pid)
            ours, floor = _pushes(plan, git, house, repository, room, number)
            after_pushes = memory(house.pid).rss
        restart = _started(git, room, number, "kept")
        cloned = _clone(git, room)
    yield Result(
        name=f"git.push.{number}",
        what=f"a push webhook comes → the changed task is live, {number:,} tasks in the repository",
        ours=figure("pushed → live", "ms", ours),
        floor=figure("git ls-remote and git fetch of the same commit", "ms", floor),
        limits=(Limit("p50", "<=", 300), Limit("p99", "<=", 1000)) if number < 10_000 else (),
        notes=(f"the server holds {after_pushes:.0f} MB after {len(ours)} pushes",),
        also={"rss_after_mb": after_pushes},
    )
    if number > 1:
        yield Result(
            name=f"git.start.{number}",
            what=f"spawn on a new data dir → {number:,} tasks of a remote repository registered",
            ours=figure("start", "s", starts),
            floor=figure("git clone --depth 1", "s", [cloned]),
            notes=(
                f"again, with the checkout on disk: {restart:.2f} s",
                f"memory: server {after_start:.0f} MB, git worker {workers:.0f} MB",
            ),
            also={
                "restart_s": restart,
                "server_rss_mb": after_start,
                "worker_rss_mb": workers,
            },
        )


def _reports(folder: Path, number: int) -> dict[str, str | bytes | None]:
    write_reports(folder, number)
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(folder.rglob("*.*"))
    }


@contextmanager
def _house(git: GitServer, room: Path, number: int, name: object) -> Generator[House]:
    own = room / f"house-{name}"
    own.mkdir(exist_ok=True)
    config = (
        f"server: {{allow_local_git: true}}\nsources:\n- name: src\n  type: git\n"
        f"  url: {git.url_of()}\n  poll_interval: 1h\n  push_secret_env: PUSH\n"
    )
    with serving(own, None, number, config=config, environ={"PUSH": _SECRET}) as house:
        yield house


def _started(git: GitServer, room: Path, number: int, name: object) -> float:
    with _house(git, room, number, name) as house:
        return house.answered_s


def _pushes(
    plan: Plan, git: GitServer, house: House, repository: Repository, room: Path, number: int
) -> tuple[list[float], list[float]]:
    clone = room / "floor.git"
    run_git("clone", "-q", "--bare", git.url_of(), str(clone))
    ours: list[float] = []
    floor: list[float] = []
    script = "report-00000/task.py"
    with line_to(house.socket) as line:
        for turn in range(plan.times(30 if number < 10_000 else 20, 5)):
            commit = repository.commit({script: f"def main():\n    return {turn}\n"})
            began = time.perf_counter()
            _post(house.port)
            _await_live(line, commit)
            ours.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            run_git("ls-remote", git.url_of(), "refs/heads/main")
            run_git("fetch", "-q", "origin", "+refs/heads/main:refs/heads/main", cwd=clone)
            floor.append((time.perf_counter() - began) * 1000)
            time.sleep(_REST_S)
    return ours, floor


def _post(port: int) -> None:
    body = b'{"ref": "refs/heads/main"}'
    proof = "sha256=" + hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/hooks/git/src", body, {"X-Hub-Signature-256": proof})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 202:
        raise Unmeasurable(f"the webhook answered {answer.status}")


def _await_live(line: Line, commit: str) -> None:
    end = time.monotonic() + _SEEN_S
    while line.call("get_task", id=_TASK).get("revision") != commit:
        if time.monotonic() > end:
            raise Unmeasurable("a push was not live in time")
        # Asking more often would take the server's own time from what is measured.
        time.sleep(0.004)


def _clone(git: GitServer, room: Path) -> float:
    began = time.perf_counter()
    run_git("clone", "-q", "--depth", "1", git.url_of(), str(room / "clone"))
    return time.perf_counter() - began


def _worker_memory(pid: int) -> float:
    """Give the memory of the git worker of a server; 0 when it has none."""
    for folder in Path("/proc").iterdir():
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == str(pid) and b"sources.git.worker" in command:
            try:
                return memory(int(folder.name)).rss
            except Unmeasurable:
                # It keeps others of its user out; root may look.
                return 0.0
    return 0.0


ROW = Row("git", "a push → live, a poll, a start, with tasks from git", measure)
