"""kill -9 of the server in the middle of attempts, a chain and a join: each comes once."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from crash_loop import Server

pytestmark = pytest.mark.slow

RETRY = "retry: {attempts: 20, backoff: 50ms, on: [failure, lost]}\n"
SLEEP = "import time\ndef main():\n    time.sleep(0.15)\n    return 1\n"
FLAKY = (
    "import time\ndef main(kv):\n    tries = kv.get('tries', 0) + 1\n    kv.set('tries', tries)\n"
    "    time.sleep(0.1)\n    if tries % 2:\n        raise RuntimeError('x')\n    return tries\n"
)
TASKS = {
    "top": ("{manual: true}", SLEEP),
    "a": ("{chain: {from: top}}", FLAKY),
    "b": ("{chain: {from: top}}", SLEEP),
    "end": ("{chain: {from: [a, b], join: all}}", SLEEP),
}


@pytest.fixture
def server() -> Any:
    # Below /tmp itself: the path of a socket is short.
    root = Path(tempfile.mkdtemp(prefix="dicode-retry-"))
    server = Server(root)
    for name, (trigger, script) in TASKS.items():
        folder = server.tasks / name
        folder.mkdir(parents=True)
        (folder / "task.yaml").write_text(
            f"name: {name}\nruntime: python\ntrigger: {trigger}\n{RETRY}"
        )
        (folder / "task.py").write_text(script)
    yield server
    with contextlib.suppress(Exception):
        server.kill()
    shutil.rmtree(root, ignore_errors=True)


def test_attempts_a_chain_and_a_join_come_once_through_kill_9(server: Server) -> None:
    server.start()
    root = server.call("run_task", {"id": "top", "wait_seconds": 0, "idempotency_key": "k"})
    for pause in (0.1, 0.35, 0.6, 0.25):
        time.sleep(pause)
        server.kill()
        server.start()
    tree = settled(server, root["run_id"])
    for task in TASKS:
        attempts = [run for run in tree if run["task"] == task]
        (first,) = [run for run in attempts if run["attempt"] == 1]
        assert first["status"] in ("success", "failure", "lost")
        assert [run["status"] for run in attempts].count("success") == 1, tree
        shown = server.call("get_run", {"run_id": first["run_id"]})
        assert sorted(shown.get("attempts", [first["run_id"]])) == sorted(
            run["run_id"] for run in attempts
        )
    server.stop()


def settled(server: Server, run_id: str) -> list[dict[str, Any]]:
    """Give the tree once the join has succeeded and nothing under the root is on."""
    deadline = time.monotonic() + 60
    while True:
        tree = server.call("get_run", {"run_id": run_id, "tree": True})["tree"]
        done = any(run["task"] == "end" and run["status"] == "success" for run in tree)
        if done and all(run["status"] not in ("queued", "running") for run in tree):
            return tree
        assert time.monotonic() < deadline, tree
        time.sleep(0.1)
