from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import FakeServer

from dicode_mcp.cli.pipe import HIGH_WATER, End, Ledger, Pipe


class Wires:
    """A pipe in a thread, with the three far ends in the test's hands."""

    def __init__(self, already_read: bytes = b"") -> None:
        source, self.stdin = os.pipe()
        self.stdout, sink = os.pipe()
        self._open = [source, sink]
        near, self.server = socket.socketpair()
        self.end: End | None = None
        self._pipe = Pipe(source, sink, near, already_read)
        self._near = near
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._near:
            self.end = self._pipe.run()
        for fd in self._open:
            os.close(fd)

    def finish(self) -> End:
        self._thread.join(20)
        assert self.end is not None, "the pipe is still running"
        return self.end

    def close_input(self) -> None:
        os.close(self.stdin)
        self.stdin = -1

    def read_output(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            assert select.select([self.stdout], [], [], 20)[0], "nothing came"
            data += os.read(self.stdout, count - len(data))
        return data

    def close(self) -> None:
        self.server.close()
        for fd in (self.stdin, self.stdout):
            if fd >= 0:
                os.close(fd)
        self._thread.join(20)


@contextmanager
def wires(already_read: bytes = b"") -> Generator[Wires]:
    made = Wires(already_read)
    try:
        yield made
    finally:
        made.close()


def receive(connection: socket.socket, count: int) -> bytes:
    connection.settimeout(20)
    data = bytearray()
    while len(data) < count:
        chunk = connection.recv(min(65536, count - len(data)))
        assert chunk
        data += chunk
    return bytes(data)


def line(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def test_megabytes_pass_unchanged_both_ways_through_small_buffers() -> None:
    payload = os.urandom(3_000_000).replace(b"\n", b" ")
    with wires() as w:
        w.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writers = [
            threading.Thread(target=_write_all, args=(w.stdin, payload)),
            threading.Thread(target=w.server.sendall, args=(payload[::-1],)),
        ]
        for writer in writers:
            writer.start()
        output: list[bytes] = []
        reader = threading.Thread(target=lambda: output.append(w.read_output(len(payload))))
        reader.start()
        assert receive(w.server, len(payload)) == payload
        for thread in (*writers, reader):
            thread.join(20)
        assert output == [payload[::-1]]


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def test_a_client_that_does_not_read_holds_the_server_back() -> None:
    with wires() as w:
        w.server.setblocking(False)
        sent = 0
        while select.select([], [w.server], [], 0.3)[1]:
            sent += w.server.send(b"x" * 65536)
            assert sent < 8 * HIGH_WATER, "the pipe takes whatever comes"


def test_the_end_of_input_waits_for_the_answers() -> None:
    with wires() as w:
        _write_all(w.stdin, line(id=1, method="tools/call") + line(id="b", method="ping"))
        w.close_input()
        asked = w.server.makefile("rb")
        assert [json.loads(asked.readline())["id"] for _ in range(2)] == [1, "b"]
        answers = line(id="b", result={}), line(id=1, result={"n": 1})
        w.server.sendall(answers[0])
        assert w.read_output(len(answers[0])) == answers[0]
        assert select.select([w.server], [], [], 0.2)[0] == []
        w.server.sendall(answers[1])
        assert asked.readline() == b""
        last_words = line(method="notifications/bye")
        w.server.sendall(last_words)
        w.server.close()
        asked.close()
        assert w.read_output(len(answers[1] + last_words)) == answers[1] + last_words
        assert w.finish() is End.DONE


@pytest.mark.parametrize(
    "unanswered",
    [
        line(method="notifications/initialized"),
        line(id=7, method="subscriptions/listen"),
        line(id=7, method="tools/call")
        + line(method="notifications/cancelled", params={"requestId": 7}),
        b"not json\n\n",
        b"",
    ],
)
def test_what_gets_no_answer_does_not_hold_up_the_end(unanswered: bytes) -> None:
    with wires() as w:
        _write_all(w.stdin, unanswered)
        w.close_input()
        assert receive(w.server, len(unanswered)) == unanswered
        assert w.server.recv(10) == b""
        w.server.close()
        assert w.finish() is End.DONE


def test_a_server_that_goes_away_is_reported_after_its_last_words() -> None:
    with wires() as w:
        w.server.sendall(b"last words\n")
        w.server.close()
        assert w.read_output(11) == b"last words\n"
        assert w.finish() is End.SERVER_GONE


def test_a_client_that_goes_away_ends_the_pipe() -> None:
    with wires() as w:
        os.close(w.stdout)
        w.stdout = -1
        w.server.sendall(b"hello\n")
        assert w.finish() is End.CLIENT_GONE


def test_bytes_read_with_the_servers_greeting_come_first() -> None:
    with wires(b"early\n") as w:
        w.server.sendall(b"later\n")
        assert w.read_output(12) == b"early\nlater\n"


def test_the_ledger_reads_lines_cut_anywhere() -> None:
    asked = line(id=1, method="a", params={"method": "x"}) + line(id=2, method="b")
    answered = line(id=2, result={"id": 1, "method": "y"}) + line(id=1, error={"code": 1})
    for size in (1, 3, 50):
        ledger = Ledger()
        for start in range(0, len(asked), size):
            ledger.asked(asked[start : start + size])
        assert not ledger.settled
        for start in range(0, len(answered), size):
            assert not ledger.settled
            ledger.answered(answered[start : start + size])
        assert ledger.settled


class RawServer(FakeServer):
    """Echoes each line as the answer to it, after one line sent with the greeting."""

    def converse(self, wire: Any) -> None:
        while text := wire.readline():
            request = json.loads(text)
            wire.write(line(id=request["id"], result=request.get("params")))
            wire.flush()


def mcp(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dicode_mcp.cli.main", "mcp", *words]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=30, check=False)


def test_dicode_mcp_puts_nothing_but_answers_on_stdout(data_dir: Path) -> None:
    with RawServer(data_dir) as server:
        done = mcp(stdin=line(id=1, method="x", params={"n": 1}))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == line(id=1, result={"n": 1})
    assert server.preambles[0]["client"] == "mcp"


def test_the_flags_of_dicode_mcp_travel_in_the_preamble(data_dir: Path) -> None:
    with RawServer(data_dir) as server:
        done = mcp("--read-only", "--toolsets", "tasks, runs", "--tasks", "reports/*")
    assert done.returncode == 0
    preamble = server.preambles[0]
    assert preamble["read_only"] is True
    assert preamble["toolsets"] == ["tasks", "runs"]
    assert preamble["tasks"] == "reports/*"


def test_another_version_is_said_on_stderr_and_works_all_the_same(data_dir: Path) -> None:
    with RawServer(data_dir, version="9.9"):
        done = mcp(stdin=line(id=1, method="x"))
    assert done.returncode == 0
    assert done.stdout == line(id=1, result=None)
    assert b"9.9" in done.stderr
    assert b"dicode restart" in done.stderr


def test_a_refused_narrowing_is_a_usage_error_with_an_empty_stdout(data_dir: Path) -> None:
    refusal = {
        "code": "invalid_argument",
        "message": "unknown toolset",
        "hint": "allowed: tasks, runs",
    }
    with FakeServer(data_dir, refusal=refusal):
        done = mcp("--toolsets", "nope", "--json")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"allowed: tasks, runs" in done.stderr


def test_a_server_that_goes_away_ends_dicode_mcp_with_3(data_dir: Path) -> None:
    command = [sys.executable, "-m", "dicode_mcp.cli.main", "mcp"]
    with (
        RawServer(data_dir) as server,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(line(id=1, method="x"))
        process.stdin.flush()
        assert process.stdout.readline() == line(id=1, result=None)
        server.close()
        assert process.wait(20) == 3
        assert process.stdout.read() == b""
        assert b"the server went away" in process.stderr.read()
