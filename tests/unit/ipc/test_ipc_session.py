"""The talk with a task, from the task's end of the socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.ipc import SessionServer
from dicode_mcp.ipc.calls import METHODS, NOT_OFFERED
from dicode_mcp.ipc.frames import MAX_FRAME
from dicode_mcp.ipc.session import OnLearned, TaskSession
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger
from dicode_mcp.runs.redaction import NOTHING, Redactor
from dicode_mcp.spec.model import DicodeGrants, Permissions, Task, TaskSpec, TriggerSpec
from dicode_mcp.testing.task_calls import FakeTaskCalls
from dicode_sdk import _channel

RUN = Run("run-1", "t", RunStatus.RUNNING, Trigger.MANUAL, 0)


def task(grants: DicodeGrants | None = None) -> Task:
    spec = TaskSpec(
        name="t",
        runtime="python",
        trigger=TriggerSpec(manual=True),
        permissions=Permissions(dicode=grants or DicodeGrants()),
    )
    return Task("t", spec, Path("/t"), Path("/t/task.py"), "", "s")


class Peer:
    """The task's end."""

    def __init__(
        self, session: TaskSession, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.session = session
        self._reader = reader
        self._writer = writer

    async def read(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            return json.loads(await self._reader.readline())

    def send(self, *parts: Any) -> None:
        for part in parts:
            data = part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n"
            self._writer.write(data)

    async def ask(self, method: str, args: Any = None, number: int = 1) -> dict[str, Any]:
        self.send({"id": number, "method": method, "args": args or {}})
        return await self.read()

    async def hang_up(self) -> None:
        await self._writer.drain()
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def talk(
    calls: FakeTaskCalls,
    grants: DicodeGrants | None = None,
    payload: Payload | None = None,
    in_flight: int = 64,
    hide: Redactor = NOTHING,
    on_learned: OnLearned | None = None,
) -> AsyncGenerator[Peer]:
    server = SessionServer(calls, max_in_flight=in_flight, on_learned=on_learned)
    async with server.open(RUN, task(grants), payload or Payload(), hide=hide) as session:
        end = socket.socket(fileno=session.child_fd)
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=4 * MAX_FRAME)
        peer = Peer(session, reader, writer)
        try:
            yield peer
        finally:
            writer.close()


async def test_the_first_frame_carries_what_the_run_was_started_with() -> None:
    payload = Payload(params={"a": 1}, input=[None, "ü\n"], request={"method": "POST"})
    async with talk(FakeTaskCalls(), payload=payload) as peer:
        start = (await peer.read())["start"]
    assert start["run_id"] == "run-1"
    assert start["task_id"] == "t"
    assert (start["params"], start["input"]) == ({"a": 1}, [None, "ü\n"])
    assert start["request"] == {"method": "POST"}


async def test_what_the_task_finished_with_is_reported_when_it_hangs_up() -> None:
    async with talk(FakeTaskCalls()) as peer:
        await peer.read()
        assert (await peer.ask("output", {**_TEXT, "body": "shown"}))["result"] is None
        peer.send({"finish": {"return": '{"a":1}', "error": None}})
        await peer.hang_up()
        report = await peer.session.report()
    assert (report.finished, report.return_value, report.error) == (True, '{"a":1}', None)
    assert report.output is not None
    assert report.output.body == "shown"


_TEXT = {"kind": "text", "content_type": "text/plain", "body": "x"}


async def test_a_process_that_just_ends_has_not_finished() -> None:
    async with talk(FakeTaskCalls()) as peer:
        await peer.read()
        await peer.hang_up()
        report = await peer.session.report()
    assert not report.finished
    assert report.reason is None


async def test_a_finish_is_not_lost_when_the_task_leaves_answers_unread() -> None:
    calls = FakeTaskCalls()
    calls.wait_for_all_of(2)
    async with talk(calls, DicodeGrants(tasks=("x",))) as peer:
        peer.send(
            {"id": 1, "method": "run_task", "args": {"id": "x", "params": {}}},
            {"finish": {"return": "1", "error": None}},
        )
        await peer.hang_up()
        calls.open()
        assert (await peer.session.report()).return_value == "1"


@pytest.mark.parametrize(
    ("method", "args", "line"),
    [
        ("run_task", {"id": 'a"b\n'}, r'permissions.dicode.tasks: ["a\"b\n"]'),
        ("trigger", {"id": "other"}, 'permissions.dicode.tasks: ["other"]'),
        ("list_tasks", {}, "permissions.dicode.list_tasks: true"),
        ("get_runs", {"id": "x"}, "permissions.dicode.get_runs: true"),
    ],
)
async def test_a_refusal_names_the_line_to_add(
    method: str, args: dict[str, Any], line: str
) -> None:
    async with talk(FakeTaskCalls()) as peer:
        await peer.read()
        error = (await peer.ask(method, args))["error"]
    assert error["code"] == "forbidden"
    assert error["hint"] == f"add to task.yaml: {line}"


@pytest.mark.parametrize(
    ("method", "args", "words"),
    [
        ("kv.get", {}, "'key'"),
        ("kv.get", {"key": ""}, "1 to 1,024 bytes"),
        ("kv.get", {"key": "k" * 1025}, "1 to 1,024 bytes"),
        ("kv.get", {"key": "a", "kee": 1}, "no argument 'kee'"),
        ("run_task", {"id": "x", "params": [1]}, "a mapping"),
        ("get_runs", {"id": "x", "limit": 0}, "from 1 to 500"),
        ("get_runs", {"id": "x", "limit": True}, "from 1 to 500"),
        ("progress", {"done": "half"}, "as a number"),
        ("output", {"kind": "text", "content_type": "text/plain\r\nX: y", "body": ""}, "type"),
        ("output", {**_TEXT, "base64": True, "body": "<>"}, "not base64"),
        ("output", {**_TEXT, "kind": "file", "name": "../x"}, "without slashes"),
        ("output", {**_TEXT, "kind": "virus"}, "needs a kind"),
    ],
)
async def test_wrong_arguments_are_refused_by_name(
    method: str, args: dict[str, Any], words: str
) -> None:
    async with talk(FakeTaskCalls(), DicodeGrants(tasks=("x",), get_runs=True)) as peer:
        await peer.read()
        error = (await peer.ask(method, args))["error"]
    assert error["code"] == "invalid_argument"
    assert words in error["message"]


@pytest.mark.parametrize("method", sorted(NOT_OFFERED))
async def test_what_this_server_does_not_offer_yet_says_so(method: str) -> None:
    async with talk(FakeTaskCalls()) as peer:
        await peer.read()
        error = (await peer.ask(method, {"anything": 1}))["error"]
    assert error["code"] == "not_supported"
    assert method in error["message"]
    assert method not in METHODS


async def test_secret_output_goes_to_whoever_asked_and_is_not_kept() -> None:
    calls = FakeTaskCalls()
    async with talk(calls) as peer:
        await peer.read()
        answer = await peer.ask("output", {"kind": "secret", "data": {"TOKEN": "canary-value"}})
        wrong = await peer.ask("output", {"kind": "secret", "data": {"TOKEN": ["canary-value"]}})
        await peer.hang_up()
        report = await peer.session.report()
    assert calls.provided == {"TOKEN": "canary-value"}
    assert report.output is None
    assert "canary" not in json.dumps([answer, wrong])
    assert "TOKEN" in wrong["error"]["message"]


@pytest.mark.parametrize("method", ["kv.set", "once.get", "once.put"])
async def test_a_key_that_holds_a_secret_is_refused_and_not_repeated(method: str) -> None:
    calls = FakeTaskCalls()
    more = {} if method == "once.get" else {"value": 1}
    async with talk(calls, hide=Redactor({"TOKEN": "canary-value"})) as peer:
        await peer.read()
        refused = await peer.ask(method, {"key": "user-canary-value", **more})
        fine = await peer.ask(method, {"key": "user-1", **more})
        await peer.hang_up()
    assert refused["error"]["code"] == "invalid_argument"
    assert "user-[secret TOKEN]" in refused["error"]["message"]
    assert "canary" not in json.dumps(refused)
    assert "result" in fine


async def test_what_a_run_learns_to_hide_is_kept_before_it_is_used() -> None:
    calls = FakeTaskCalls()
    heard: list[tuple[str, bool]] = []

    async def learned(run: Run, of: Task, hide: Redactor) -> None:
        heard.append((hide.text("canary-1 canary-2"), bool(calls.secrets or calls.provided)))

    given = DicodeGrants(secrets_write=True)
    async with talk(calls, given, hide=Redactor({}), on_learned=learned) as peer:
        await peer.read()
        await peer.ask("secrets_set", {"name": "A", "value": "canary-1"})
        calls.secrets.clear()
        await peer.ask("output", {"kind": "secret", "data": {"B": "canary-2"}})
        await peer.hang_up()
    assert heard == [("[secret A] canary-2", False), ("[secret A] [secret B]", False)]


async def test_calls_after_the_end_are_refused() -> None:
    async with talk(FakeTaskCalls()) as peer:
        await peer.read()
        peer.send({"finish": {"return": None, "error": None}})
        assert (await peer.ask("kv.get", {"key": "a"}))["error"]["code"] == "conflict"


async def test_a_call_that_breaks_the_server_tells_the_task_nothing_of_it() -> None:
    class Broken(FakeTaskCalls):
        async def kv_get(self, run: Run, task: Task, key: str) -> Any:
            raise RuntimeError("inner detail")

    async with talk(Broken()) as peer:
        await peer.read()
        error = (await peer.ask("kv.get", {"key": "a"}))["error"]
    assert error == {"code": "internal", "message": "the server failed on this call"}


@pytest.mark.parametrize(
    "frame",
    [
        b"not json\n",
        b"[1]\n",
        b'"text"\n',
        b'{"id":1}\n',
        b'{"id":0,"method":"kv.get","args":{}}\n',
        b'{"id":true,"method":"kv.get","args":{}}\n',
        b'{"id":1,"method":5,"args":{}}\n',
        b'{"id":1,"method":"kv.get","args":[]}\n',
        b'{"id":1,"method":"kv.set","args":{"key":"a","value":NaN}}\n',
        b'{"finish":1}\n',
        b'{"finish":{"return":{"a":1}}}\n',
        b'{"finish":{"error":"text"}}\n',
        b'{"finish":{}}\n{"finish":{}}\n',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
        b"x" * (MAX_FRAME + 2),
        b'{"id":' + b"9" * 5000 + b"}\n",
    ],
    ids=lambda frame: repr(frame[:30]),
)
async def test_what_is_not_of_the_protocol_ends_the_talk(frame: bytes) -> None:
    async with talk(FakeTaskCalls()) as peer:
        await peer.read()
        peer.send(frame)
        async with asyncio.timeout(20):
            report = await peer.session.report()
    assert report.reason == "protocol_error"
    assert report.error is not None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"' + "x" * 1024 * 1024 + '"', "return_too_large"),
        ("NaN", "return_not_json"),
        ("{", "return_not_json"),
        ("[" * 100_000, "return_not_json"),
    ],
)
async def test_a_return_value_is_checked_whoever_sent_it(text: str, reason: str) -> None:
    async with talk(FakeTaskCalls()) as peer:
        await peer.read()
        peer.send({"finish": {"return": text, "error": None}})
        await peer.hang_up()
        report = await peer.session.report()
    assert (report.reason, report.return_value) == (reason, None)


async def test_a_flood_of_calls_is_taken_a_few_at_a_time() -> None:
    calls = FakeTaskCalls()
    calls.wait_for_all_of(8)
    async with talk(calls, DicodeGrants(tasks=("x",)), in_flight=8) as peer:
        await peer.read()
        for number in range(1, 501):
            peer.send({"id": number, "method": "run_task", "args": {"id": "x"}})
        answered = {(await peer.read())["id"] for _ in range(500)}
    assert answered == set(range(1, 501))
    assert calls.most_in_flight == 8


async def test_two_calls_at_once_with_one_number_break_the_protocol() -> None:
    calls = FakeTaskCalls()
    calls.wait_for_all_of(3)
    async with talk(calls, DicodeGrants(tasks=("x",))) as peer:
        await peer.read()
        call = {"id": 1, "method": "run_task", "args": {"id": "x"}}
        peer.send(call, call)
        assert (await peer.session.report()).reason == "protocol_error"


async def test_closing_cancels_what_is_still_served() -> None:
    calls = FakeTaskCalls()
    calls.wait_for_all_of(2)
    async with talk(calls, DicodeGrants(tasks=("x",))) as peer:
        await peer.read()
        peer.send({"id": 1, "method": "run_task", "args": {"id": "x"}})
        peer.send({"id": 2, "method": "kv.get", "args": {"key": "a"}})
        assert (await peer.read())["id"] == 2
        assert calls.in_flight == 1
    assert calls.in_flight == 0


async def test_a_session_that_was_never_used_leaves_no_descriptor() -> None:
    before = len(os.listdir("/dev/fd"))
    async with SessionServer(FakeTaskCalls()).open(RUN, task(), Payload()):
        pass
    await asyncio.sleep(0)
    assert len(os.listdir("/dev/fd")) == before


def test_both_ends_agree_on_the_size_of_a_frame() -> None:
    assert _channel.MAX_FRAME == MAX_FRAME
