"""Stands in for ``python -m dicode_mcp.daemon``: takes the lock, answers, ends on TERM."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
from pathlib import Path

from cli_fakes import FakeServer

if __name__ == "__main__":
    words = sys.argv[1:]
    folder = Path(words[words.index("--data-dir") + 1])
    if "--port" in words and words[words.index("--port") + 1] == "1":
        print("port 1 is taken by another program; choose another with --port", file=sys.stderr)
        sys.exit(2)
    with (folder / "server.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another server holds the data dir", file=sys.stderr)
            sys.exit(2)
        lock.truncate(0)
        lock.write(json.dumps({"pid": os.getpid(), "version": "0", "port": None, "host": ""}))
        lock.flush()
        with (folder / "starts").open("a") as starts:
            starts.write(json.dumps({"words": words, "cwd": os.getcwd()}) + "\n")
        ended = threading.Event()
        if "--log-level" not in words:

            def end(number: int, frame: object) -> None:
                ended.set()

            signal.signal(signal.SIGTERM, end)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with FakeServer(folder):
            ended.wait()
