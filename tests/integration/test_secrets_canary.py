"""A canary secret, used by tasks that show it in every way they can, is found nowhere.

Looked through afterwards: every file of the data dir (databases, write-ahead logs, log chunks
unpacked), all that the surfaces answered, the server's own log, the command lines of processes.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from liveserver import Live, Serve, write_task
from test_events_live import Stream, streaming

from dicode_mcp.config.model import NotificationsConfig
from dicode_mcp.runs.redaction import forms
from dicode_mcp.testing.waiting import DEADLINE_S, running, until
from dicode_runtimes.uv import UvProgram

CANARY = 'c4nary/of=the+m1ne"&<é>'
ENTRY = "permissions: {env: [{name: TOKEN, secret: canary}], dicode: {tasks: ['*']}}\n"

PYTHON = """
import asyncio, base64, html, json, os, sys, time, urllib.parse
from dicode_sdk import dicode, kv, log, output

token = os.environ["TOKEN"]
raw = token.encode()
print(token)
print("err", token, file=sys.stderr)
for piece in (raw[:3], raw[3:9], raw[9:]):
    os.write(1, piece)
    time.sleep(0.05)
os.write(1, b"\\n")
for shift in range(3):
    print(base64.b64encode(b"x" * shift + raw + b"tail").decode())
    print(base64.urlsafe_b64encode(b"x" * shift + raw).decode())
print(urllib.parse.quote(token), urllib.parse.quote_plus(token), urllib.parse.quote(token, safe=""))
print(json.dumps(token), json.dumps(token, ensure_ascii=False), repr(token), html.escape(token))
print(raw.hex())
for level in (log.debug, log.info, log.warn, log.error):
    level(f"logged {token}")
kv.set("kept", {"token": token})
dicode.progress(1, 2, f"half of {token}")
dicode.once("step", lambda: token)
child = dicode.run_task("child", {"given": token})
dicode.run_task("child", {"given": token, "deeper": "yes"})
dicode.trigger("child", {"deep": [token]})
with open(os.path.join(os.environ["TMPDIR"], "left behind"), "w") as file:
    file.write(token)
import socket, subprocess
for use in (
    lambda: open("/srv/" + name + "/" + token),
    lambda: os.listdir("/srv/" + token),
    lambda: socket.create_connection((raw.hex() + ".example", 443), 1),
    lambda: subprocess.run(["/usr/bin/" + token]),
):
    try:
        use()
    except Exception as error:
        print(error)
name = urllib.parse.quote(token, safe="")
output.file(f"{name}.txt", raw + b" in a file", "application/octet-stream")
output.image("image/png", base64.b64encode(b"\\x89PNG" + raw).decode())
output.html(f"<p>{html.escape(token)}</p>", data={token: [token]})
try:
    dicode.run_task(f"no/{token}", {})
except Exception as error:
    log.warn(str(error))
result = {"plain": token, token: {"deep": [f"x{token}x", base64.b64encode(raw).decode()]}}
"""

RAISES = """
import os
raise ValueError("cannot log in with " + os.environ["TOKEN"])
"""

ASKS = """
import os
from dicode_sdk import dicode
token = os.environ["TOKEN"]
result = dicode.ask(
    {"type": "object", "properties": {"ok": {"type": "string", "description": token,
     "default": token}}}, f"May I use {token}?")
"""

SHOWS_INPUT = """
import base64, json, os, time
from dicode_sdk import dicode, input, log, output, params
# Plain values for this one: what it is not to show, only its parent knows.
given = params.get("given") or (json.dumps(input) if input else "")
print("got", given, json.dumps(params.all()))
for piece in (given[:5], given[5:] + "\\n"):
    os.write(2, piece.encode())
    time.sleep(0.05)
log.info(base64.b64encode(b"xy" + given.encode()).decode())
dicode.progress(1, 2, given)
output.text("shown " + given)
result = {"given": given}
if given and params.get("deeper"):
    dicode.trigger("grandchild", {"deep": given})
    raise ValueError("cannot use " + given)
"""
CHILD = """
params: {given: '', deeper: ''}
concurrency: {key: '${params.given}', limit: 9}
runtime: python
trigger: {manual: true}
permissions: {dicode: {tasks: [grandchild]}}
retry: {attempts: 2, backoff: 10ms}
"""
WAITS = "import time\nprint('on')\ntime.sleep(60)\n"
HOW = "result = open('/proc/self/cmdline').read()\n"
OF_ITS_OWN = "# /// script\n# dependencies = []\n# ///\n"

DENO = """
export default async function main({ env, log, output, kv, dicode }: any) {
  const token = env.get("TOKEN");
  console.log(token);
  console.error("err", token, JSON.stringify({ token }), encodeURIComponent(token));
  console.log(btoa(String.fromCharCode(...new TextEncoder().encode("xy" + token))));
  const bytes = new TextEncoder().encode(token + "\\n");
  await Deno.stdout.write(bytes.slice(0, 5));
  await new Promise((r) => setTimeout(r, 50));
  await Deno.stdout.write(bytes.slice(5));
  await log.info("logged " + token);
  await kv.set("kept", token);
  await dicode.progress(1, 2, "half of " + token);
  await output.text("shown " + token);
  try {
    await Deno.readTextFile("/srv/" + token);
  } catch (error) {
    console.log(String(error));
  }
  return { token, [token]: [token] };
}
"""
DENO_RAISES = """
export default async function main({ env }: any) {
  throw new TypeError("cannot log in with " + env.get("TOKEN"));
}
"""


def canary_forms() -> frozenset[bytes]:
    return forms(CANARY)


def found_in(data: bytes) -> list[bytes]:
    return [form for form in canary_forms() if form in data]


def files_of(folder: Path) -> Iterable[tuple[str, bytes]]:
    """Give every file below a folder, and every name there."""
    for file in sorted(folder.rglob("*")):
        yield f"name of {file}", os.fsencode(file.name)
        if file.is_file() and not file.is_symlink():
            yield str(file), file.read_bytes()


def stored(data_dir: Path) -> Iterable[tuple[str, bytes]]:
    """Give every file of a data dir, and the chunks of the log unpacked."""
    yield from files_of(data_dir)
    with sqlite3.connect(data_dir / "logs.db") as connection:
        for run_id, body in connection.execute("SELECT run_id, body FROM log_chunks"):
            yield f"log of {run_id}", zlib.decompress(body)


def command_lines() -> bytes:
    found = b""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found += (folder / "cmdline").read_bytes()
            except OSError:
                continue
    return found


async def shown_by_surfaces(live: Live, run_ids: Iterable[str]) -> list[tuple[str, str]]:
    """Give what tools, resources, REST and pages say of runs."""
    found: list[tuple[str, str]] = []
    for tool, arguments in [
        ("get_runs", {}),
        ("list_tasks", {}),
        ("secrets_list", {}),
        ("get_stats", {}),
        ("get_status", {}),
        *[("get_run", {"run_id": run_id}) for run_id in run_ids],
        *[("get_logs", {"run_id": run_id, "level": "debug"}) for run_id in run_ids],
    ]:
        params = {"name": tool, "arguments": arguments, "_meta": META}
        found.append((tool, str(await live.request("tools/call", params))))
    async with httpx.AsyncClient(
        base_url=live.server.url or "", trust_env=False, timeout=DEADLINE_S
    ) as client:
        paths = ["/", "/runs", "/api/tasks", "/api/tasks/runs", "/metrics", "/tasks/leaks"]
        for run_id in run_ids:
            paths += [f"/runs/{run_id}", f"/runs/{run_id}/answer"]
            paths += [f"/api/runs/{run_id}", f"/api/runs/{run_id}/logs"]
            uri = f"dicode://runs/{run_id}"
            for part in (uri, f"{uri}/logs"):
                answer = await live.request("resources/read", {"uri": part, "_meta": META})
                found.append((part, str(answer)))
        for path in paths:
            found.append((path, (await client.get(path)).text))
    return found


async def listen(stream: Stream, heard: list[str]) -> None:
    while True:
        heard.append(str(await stream.next()))


META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def write_tasks(live: Live) -> list[str]:
    python = f"runtime: python\ntrigger: {{manual: true}}\n{ENTRY}"
    live.write("leaks", PYTHON, python)
    live.write("leaks-elsewhere", OF_ITS_OWN + PYTHON, python)
    live.write("raises", RAISES, python + "notify: {on_failure: true}\non_failure_chain: tell\n")
    live.write("asks", ASKS, python)
    live.write("child", SHOWS_INPUT, CHILD)
    live.write("grandchild", SHOWS_INPUT)
    live.write("tell", SHOWS_INPUT)
    live.write("after", SHOWS_INPUT, "runtime: python\ntrigger: {chain: {from: leaks}}\n")
    live.write("sleeps", WAITS, python)
    live.write("how", HOW)
    for name, script in (("deno-leaks", DENO), ("deno-raises", DENO_RAISES)):
        write_task(live.tasks, name, "", f"runtime: deno\ntrigger: {{manual: true}}\n{ENTRY}")
        (live.tasks / name / "task.py").unlink()
        (live.tasks / name / "task.ts").write_text(script)
    elsewhere = ["leaks-elsewhere"] if UvProgram({}).health.ok else []
    return ["leaks", *elsewhere, "raises", "deno-leaks", "deno-raises"]


async def forked(live: Live) -> None:
    """Return once Python runs are forks of a warm interpreter: their command line is that one's."""
    while "task.py" in (how := (await live.run("how"))["return_value"]) or not how:
        pass


async def ended_run(live: Live, task: str) -> dict[str, Any]:
    """Run a task; again, while the last of what its script needs is being made."""
    if task == "leaks-elsewhere":
        await until(lambda: list((live.data / "cache").rglob("pyvenv.cfg")))
    while (run := await live.run(task)).get("reason") == "start_failed":
        pass
    return run


async def all_ended(live: Live) -> list[dict[str, Any]]:
    """Wait for every run but those that wait for an answer; gives all."""
    while True:
        runs = (await live.call("get_runs", limit=100))["runs"]
        if all("finished_at" in run or run["status"] == "waiting" for run in runs):
            return runs


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["strict", "off"])
async def test_a_canary_is_found_nowhere(
    serve: Serve, caplog: pytest.LogCaptureFixture, sandbox: str, tmp_path: Path
) -> None:
    """``strict`` has Python runs forked, ``off`` has each started as a process of its own."""
    caplog.set_level(logging.DEBUG)
    heard: list[str] = []
    shown: list[tuple[str, str]] = []
    (tmp_path / "tmp").mkdir()
    environ = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    told_of = NotificationsConfig(task="tell")
    async with serve(http=True, environ=environ, sandbox=sandbox, notifications=told_of) as live:
        names = write_tasks(live)
        await live.sync()
        if sandbox == "strict":
            await forked(live)
        async with streaming(live) as stream, running(listen(stream, heard)):
            told = await live.call("secrets_set", name="canary", value=CANARY)
            ended: dict[str, dict[str, Any]] = {}
            for name in names:
                ended[name] = await ended_run(live, name)
            for name in (name for name in names if "leaks" in name):
                assert ended[name]["status"] == "success", str(ended[name])
                assert "[secret canary]" in str(ended[name]["return_value"])
            for name in ("raises", "deno-raises"):
                assert "[secret canary]" in str(ended[name]["error"])
            asked = await live.run("asks")
            assert "[secret canary]" in str(asked["question"])
            asleep = await live.call("run_task", id="sleeps", wait_seconds=0)
            await live.first_line(asleep["run_id"])
            assert not found_in(command_lines())
            await live.call("cancel_run", run_id=asleep["run_id"])
            runs = await all_ended(live)
            again = next(run for run in runs if run["task"] == "child")
            replayed = await live.call("replay_run", run_id=again["run_id"], wait_seconds=50)
            assert "[secret canary]" in str(replayed)
            runs = await all_ended(live)
            assert {"child", "grandchild", "after", "tell"} <= {run["task"] for run in runs}
            assert {"retry", "notify", "chain", "sdk"} <= {run["trigger"] for run in runs}
            shown += await shown_by_surfaces(live, [run["run_id"] for run in runs])
            shown += [("secrets_set", str(told)), ("answers", str(ended) + str(asked))]
        for where, data in stored(live.data):
            assert not found_in(data), where
    for where, data in (*stored(live.data), *files_of(tmp_path / "tmp")):
        assert not found_in(data), f"{where}, after the end"
    for where, text in [*shown, ("events", "".join(heard)), ("server log", caplog.text)]:
        assert not found_in(text.encode()), where
    assert heard
    assert any("[secret canary]" in text for _, text in shown)
