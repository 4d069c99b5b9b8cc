"""A run that asks a human in its middle, through the whole server and with real processes."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import pytest
from liveserver import MANUAL, Live, Serve

DENO = "runtime: deno\ntrigger: {manual: true}\n"

DEPLOY = """
from dicode_sdk import dicode, kv, log

def main():
    kv.set("starts", kv.get("starts", 0) + 1)
    version = dicode.once("version", lambda: f"v{kv.get('starts')}")
    log.info("before the question")
    try:
        answer = dicode.ask(
            {"type": "object", "properties": {
                "deploy": {"type": "boolean", "title": "Deploy?"},
                "note": {"type": "string", "default": "none"}}, "required": ["deploy"]},
            f"Deploy {version}?", key="deploy")
    except Exception as error:
        log.error("the question ended in", type(error).__name__)
        raise
    log.info("after the answer")
    return {"version": version, "starts": kv.get("starts"), **answer}
"""


async def asked(live: Live, task: str, **arguments: Any) -> dict[str, Any]:
    """Run a task until it asks."""
    run = await live.run(task, **arguments)
    assert run["status"] == "waiting", run
    return run


async def log_of(live: Live, run_id: str) -> list[str]:
    lines = (await live.call("get_logs", run_id=run_id))["lines"]
    assert [line["seq"] for line in lines] == sorted({line["seq"] for line in lines})
    return [line["message"] for line in lines]


async def test_an_answer_lets_the_run_start_again_from_its_top(serve: Serve) -> None:
    async with serve() as live:
        live.write("deploy", DEPLOY)
        await live.sync()
        run = await asked(live, "deploy")
        assert run["question"]["message"] == "Deploy v1?"
        assert "answer_run" in run["next"]
        assert "duration_ms" not in run
        ended = await live.call(
            "answer_run", run_id=run["run_id"], answer={"deploy": True}, wait_seconds=50
        )
        assert ended["status"] == "success", ended
        assert ended["return_value"] == {
            "version": "v1",
            "starts": 2,
            "deploy": True,
            "note": "none",
        }
        assert ended["run_id"] == run["run_id"]
        assert ended["answers"][0]["answer"] == {"deploy": True, "note": "none"}
        assert await log_of(live, run["run_id"]) == [
            "before the question",
            "[dicode] waits for an answer: Deploy v1?",
            "[dicode] question 1 was answered by local via mcp; started again from the top",
            "before the question",
            "after the answer",
        ]
        assert [r["run_id"] for r in (await live.call("get_runs"))["runs"]] == [run["run_id"]]


async def test_a_waiting_run_holds_no_slot_and_is_listed_and_counted(serve: Serve) -> None:
    async with serve(slots=1) as live:
        live.write("deploy", DEPLOY)
        live.write("hi", "result = 1\n")
        await live.sync()
        run = await asked(live, "deploy")
        assert (await live.run("hi"))["status"] == "success"
        listed = (await live.call("get_runs", status="waiting"))["runs"]
        assert [(r["run_id"], r["question"]["message"]) for r in listed] == [
            (run["run_id"], "Deploy v1?")
        ]
        status = await live.call("get_status")
        assert status["runs_last_24h"]["waiting"] == 1
        assert status["slots"]["running"] == 0
        assert status["asking"] == 1


async def test_of_two_answers_at_once_one_wins_and_the_other_learns_who(serve: Serve) -> None:
    async with serve() as live:
        live.write("deploy", DEPLOY)
        await live.sync()
        run = await asked(live, "deploy")
        both = await asyncio.gather(
            *(
                live.call("answer_run", run_id=run["run_id"], answer={"deploy": yes})
                for yes in (True, False)
            )
        )
        won = [answer for answer in both if "error" not in answer]
        lost = [answer["error"] for answer in both if "error" in answer]
        assert (len(won), len(lost)) == (1, 1)
        assert lost[0]["code"] == "conflict"
        assert "answered already, by local via mcp at 20" in lost[0]["message"]
        assert won[0]["return_value"]["starts"] == 2


async def test_a_question_and_its_answer_survive_restarts(serve: Serve) -> None:
    async with serve() as live:
        live.write("deploy", DEPLOY)
        await live.sync()
        run = await asked(live, "deploy")
    async with serve() as live:
        shown = await live.call("get_run", run_id=run["run_id"])
        assert shown["question"] == run["question"]
        ended = await live.call("answer_run", run_id=run["run_id"], answer={"deploy": False})
        assert ended["return_value"]["version"] == "v1"


async def test_nobody_answers_in_time_and_the_run_ends_also_after_a_restart(serve: Serve) -> None:
    script = "from dicode_sdk import dicode\ndicode.ask(bool, 'Now?', timeout={})\n"
    async with serve() as live:
        live.write("quick", script.format("1"))
        live.write("slow", script.format("'2s'"))
        live.write(
            "after",
            "result = input\n",
            "runtime: python\ntrigger:\n  chain: {from: quick, on: failure}\n",
        )
        await live.sync()
        quick = await asked(live, "quick")
        slow = await asked(live, "slow")
        ended = await live.call("get_run", run_id=quick["run_id"], wait_seconds=20)
        assert (ended["status"], ended["reason"]) == ("timeout", "answer_timeout")
        assert "Now?" in ended["error"]["message"]
        refused = await live.call("answer_run", run_id=quick["run_id"], answer=True)
        assert refused["error"]["code"] == "conflict"
        while not (chained := (await live.call("get_runs", task="after"))["runs"]):
            pass
        assert chained[0]["parent_run_id"] == quick["run_id"]
    async with serve() as live:
        ended = await live.call("get_run", run_id=slow["run_id"], wait_seconds=20)
        assert (ended["status"], ended["reason"]) == ("timeout", "answer_timeout")


async def test_a_declined_question_ends_the_run_as_cancelled_unless_the_script_goes_on(
    serve: Serve,
) -> None:
    async with serve() as live:
        live.write("strict", "from dicode_sdk import dicode\nresult = dicode.ask(bool, 'Go?')\n")
        live.write(
            "lenient",
            "from dicode_sdk import dicode, DicodeError\n"
            "try:\n    result = dicode.ask(['a', 'b'], 'Which?')\n"
            "except DicodeError as error:\n    result = error.code\n",
        )
        await live.sync()
        strict, lenient = await asked(live, "strict"), await asked(live, "lenient")
        ended = await live.call("answer_run", run_id=strict["run_id"], decline=True)
        assert (ended["status"], ended["reason"]) == ("cancelled", "declined")
        ended = await live.call("answer_run", run_id=lenient["run_id"], decline=True)
        assert (ended["status"], ended["return_value"]) == ("success", "declined")


async def test_a_waiting_run_can_be_cancelled(serve: Serve) -> None:
    async with serve() as live:
        live.write("deploy", DEPLOY)
        await live.sync()
        run = await asked(live, "deploy")
        assert (await live.call("cancel_run", run_id=run["run_id"]))["status"] == "cancelled"
        refused = await live.call("answer_run", run_id=run["run_id"], answer={"deploy": True})
        assert refused["error"]["code"] == "conflict"


async def test_questions_are_asked_one_after_the_other_and_matched_by_their_order(
    serve: Serve,
) -> None:
    script = """
import asyncio
from dicode_sdk import dicode

async def main():
    names = await asyncio.gather(*(dicode.ask_async(str, f"Name {n}?") for n in (1, 2)))
    count = await dicode.ask_async({"type": "integer", "minimum": 1}, "How many?")
    return [*names, count]
"""
    async with serve() as live:
        live.write("ask", script)
        await live.sync()
        run = await asked(live, "ask")
        assert run["question"]["message"] == "Name 1?"
        run = await live.call("answer_run", run_id=run["run_id"], answer="Ann")
        assert run["question"]["message"] == "Name 2?"
        late = await live.call("answer_run", run_id=run["run_id"], answer="Bob")
        assert late["error"]["code"] == "conflict"
        assert "question 2" in late["error"]["message"]
        run = await live.call("answer_run", run_id=run["run_id"], question=2, answer="Bob")
        wrong = await live.call("answer_run", run_id=run["run_id"], question=3, answer=0)
        assert wrong["error"]["code"] == "invalid_params"
        assert "at least 1" in wrong["error"]["message"]
        ended = await live.call("answer_run", run_id=run["run_id"], question=3, answer=3)
        assert ended["return_value"] == ["Ann", "Bob", 3], ended


async def test_a_question_that_differs_from_the_answered_one_is_refused(serve: Serve) -> None:
    script = """
from dicode_sdk import dicode, kv
n = kv.get("n", 0) + 1
kv.set("n", n)
result = dicode.ask(bool, f"Delete {n} files?")
"""
    async with serve() as live:
        live.write("drift", script)
        await live.sync()
        run = await asked(live, "drift")
        ended = await live.call("answer_run", run_id=run["run_id"], answer=True)
        assert (ended["status"], ended["reason"]) == ("failure", "ask_mismatch")
        assert "another message" in ended["error"]["message"]
        assert "dicode.once" in ended["error"]["hint"]


async def test_a_task_that_was_changed_meanwhile_goes_on_in_the_version_in_force(
    serve: Serve,
) -> None:
    script = "from dicode_sdk import dicode\nanswer = dicode.ask(bool, 'Go?')\nresult = {}\n"
    async with serve() as live:
        live.write("moves", script.format("['old', answer]"))
        await live.sync()
        run = await asked(live, "moves")
        live.write("moves", script.format("['new', answer]"))
        await live.sync()
        ended = await live.call("answer_run", run_id=run["run_id"], answer=True)
        assert ended["return_value"] == ["new", True]
        assert any(
            "the task was changed while" in line for line in await log_of(live, run["run_id"])
        )


async def test_a_task_that_is_gone_ends_the_run_with_that_reason(serve: Serve) -> None:
    async with serve() as live:
        live.write("deploy", DEPLOY)
        await live.sync()
        run = await asked(live, "deploy")
        shutil.rmtree(live.tasks / "deploy")
        await live.sync()
        ended = await live.call("answer_run", run_id=run["run_id"], answer={"deploy": True})
        assert (ended["status"], ended["reason"]) == ("failure", "task_gone")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("dicode.ask({'type': 'object', 'properties': {'a': {'type': 'array'}}}, 'x')", "a: type"),
        (
            "dicode.ask({'type': 'object', 'properties': {'passwd': {'type': 'string'}}}, 'x')",
            "permissions.env",
        ),
        ("dicode.ask(bool, '')", "the message is missing"),
        ("dicode.ask(bool, 'x', timeout='60d')", "1 second to 30 days"),
        ("dicode.ask(dict, 'x')", "type is one of"),
        ("dicode.once('k', lambda: object())", "object"),
    ],
)
async def test_a_question_that_cannot_be_put_fails_the_script_and_names_the_fix(
    serve: Serve, body: str, named: str
) -> None:
    async with serve() as live:
        live.write("bad", f"from dicode_sdk import dicode\n{body}\n")
        await live.sync()
        run = await live.run("bad")
        assert run["status"] == "failure", run
        told = run["error"]["message"] + run["error"].get("hint", "")
        assert named in told, told


async def test_a_daemon_cannot_ask(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "always",
            "from dicode_sdk import dicode\ndicode.ask(bool, 'Go?')\n",
            "runtime: python\ntrigger: {daemon: true}\n",
        )
        await live.sync()
        while not (runs := (await live.call("get_runs", task="always", status="failure"))["runs"]):
            pass
        assert "a daemon cannot wait for an answer" in runs[0]["error"]["message"]


SWALLOW = """
import time
from dicode_sdk import dicode, kv
try:
    dicode.ask(bool, "Go?")
except BaseException:
    pass
try:
    kv.set("touched", True)
except BaseException:
    print("refused")
result = "went on"
"""


async def test_a_script_that_swallows_the_signal_gets_no_further(serve: Serve) -> None:
    async with serve() as live:
        live.write("stubborn", SWALLOW)
        live.write("look", "from dicode_sdk import kv\nresult = kv.get('touched')\n")
        await live.sync()
        run = await asked(live, "stubborn")
        assert "return_value" not in run
        assert "refused" in await log_of(live, run["run_id"])


async def test_a_script_that_stays_after_it_asked_is_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicode_mcp.runner._UNWIND_S", 0.3)
    script = (
        "import time\nfrom dicode_sdk import dicode\n"
        "try:\n    dicode.ask(bool, 'Go?')\nexcept BaseException:\n    time.sleep(600)\n"
    )
    async with serve() as live:
        live.write("stays", script)
        await live.sync()
        await asked(live, "stays")


async def test_finally_blocks_run_and_nothing_is_printed_when_a_thread_asks(serve: Serve) -> None:
    script = """
import threading
from dicode_sdk import dicode

def ask():
    try:
        dicode.ask(bool, "Go?")
    finally:
        print("unwound")

thread = threading.Thread(target=ask)
thread.start()
thread.join()
"""
    async with serve() as live:
        live.write("threads", script)
        await live.sync()
        run = await asked(live, "threads")
        assert await log_of(live, run["run_id"]) == [
            "unwound",
            "[dicode] waits for an answer: Go?",
        ]


async def test_a_question_within_a_task_group_ends_the_script_quietly(serve: Serve) -> None:
    script = """
import asyncio
from dicode_sdk import dicode

async def main():
    async with asyncio.TaskGroup() as group:
        one = group.create_task(dicode.ask_async(bool, "Go?"))
        group.create_task(asyncio.sleep(0))
    return one.result()
"""
    async with serve() as live:
        live.write("group", script)
        await live.sync()
        run = await asked(live, "group")
        assert await log_of(live, run["run_id"]) == ["[dicode] waits for an answer: Go?"]
        ended = await live.call("answer_run", run_id=run["run_id"], answer=True)
        assert ended["return_value"] is True


async def test_a_deno_script_asks_and_goes_on_with_the_answer(serve: Serve) -> None:
    script = """
export default async function main({ dicode, kv, log }) {
  const starts = (await kv.get("starts", 0)) + 1;
  await kv.set("starts", starts);
  const id = await dicode.once("id", () => `id-${starts}`);
  let choice = "?";
  try {
    choice = await dicode.ask(["blue", "green"], "Which?", { timeout: "1h" });
  } catch (error) {
    log.error("caught", String(error));
  } finally {
    log.info("finally");
  }
  return { id, choice, starts };
}
"""
    async with serve() as live:
        folder = live.tasks / "colour"
        folder.mkdir()
        (folder / "task.yaml").write_text(f"name: colour\n{DENO}")
        (folder / "task.js").write_text(script)
        await live.sync()
        run = await asked(live, "colour")
        assert run["question"]["schema"]["properties"]["answer"]["enum"] == ["blue", "green"]
        ended = await live.call("answer_run", run_id=run["run_id"], answer="green")
        assert ended["return_value"] == {"id": "id-1", "choice": "green", "starts": 2}, ended
        assert [line for line in await log_of(live, run["run_id"]) if "dicode" not in line] == [
            "finally"
        ]


async def test_the_time_spent_waiting_is_in_no_duration_and_no_timeout(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "brief",
            "from dicode_sdk import dicode\nresult = dicode.ask(bool, 'Go?')\n",
            MANUAL + "timeout: 5s\n",
        )
        await live.sync()
        run = await asked(live, "brief")
        await asyncio.sleep(1.5)
        ended = await live.call("answer_run", run_id=run["run_id"], answer=True)
        assert ended["status"] == "success"
        assert ended["duration_ms"] < 1_400, ended


async def test_a_waiting_run_is_out_of_its_tasks_limit_of_concurrent_runs(serve: Serve) -> None:
    script = (
        "from dicode_sdk import dicode, input\nresult = dicode.ask(bool, 'Go?') if input else 1\n"
    )
    async with serve() as live:
        live.write("one", script, MANUAL + "concurrency: {limit: 1}\n")
        await live.sync()
        run = await asked(live, "one", input=True)
        assert (await live.run("one", input=False))["status"] == "success"
        ended = await live.call("answer_run", run_id=run["run_id"], answer=True)
        assert ended["return_value"] is True


async def test_each_attempt_of_a_run_asks_anew(serve: Serve) -> None:
    script = """
from dicode_sdk import dicode
if not dicode.ask(bool, 'Again?'):
    raise RuntimeError('no')
result = 'done'
"""
    async with serve() as live:
        live.write("tries", script, MANUAL + "retry: {attempts: 3, backoff: 10ms}\n")
        await live.sync()
        run = await asked(live, "tries")
        first = run["run_id"]
        run = await live.call("answer_run", run_id=first, answer=False, wait_seconds=20)
        assert run["status"] == "failure", run
        waiting: list[dict[str, Any]] = []
        while not waiting:
            waiting = (await live.call("get_runs", status="waiting"))["runs"]
        assert waiting[0]["run_id"] != first
        run = await live.call("answer_run", run_id=waiting[0]["run_id"], answer=True)
        assert (run["status"], run["return_value"]) == ("success", "done")


async def test_a_parent_waits_for_a_child_that_asks(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "child", "from dicode_sdk import dicode\nresult = dicode.ask(int, 'How many?')\n"
        )
        live.write(
            "parent",
            "from dicode_sdk import dicode\nresult = dicode.run_task('child')['returnValue']\n",
            MANUAL + "permissions: {dicode: {tasks: [child]}}\n",
        )
        await live.sync()
        parent = await live.call("run_task", id="parent", wait_seconds=0)
        waiting: list[dict[str, Any]] = []
        while not waiting:
            waiting = (await live.call("get_runs", status="waiting"))["runs"]
        await live.call("answer_run", run_id=waiting[0]["run_id"], answer=7)
        ended = await live.call("get_run", run_id=parent["run_id"], wait_seconds=30)
        assert ended["return_value"] == 7


async def test_the_user_of_a_client_is_asked_within_the_call(serve: Serve) -> None:
    async with serve() as live:
        live.write("deploy", DEPLOY)
        await live.sync()
        accept = {"action": "accept", "content": {"deploy": True, "note": "ok"}}
        ended, forms = await live.answer("run_task", accept, id="deploy", wait_seconds=50)
        assert [form["message"] for form in forms] == ["Task deploy asks: Deploy v1?"]
        assert ended["return_value"]["note"] == "ok", ended
        assert ended["answers"][0]["via"] == "elicitation"
        assert len((await live.call("get_runs", task="deploy"))["runs"]) == 1
        entries = (await live.call("get_runs", task="deploy"))["runs"]
        assert entries[0]["run_id"] == ended["run_id"]


async def test_a_user_who_puts_the_form_away_leaves_the_question_open(serve: Serve) -> None:
    async with serve() as live:
        live.write("deploy", DEPLOY)
        await live.sync()
        run, forms = await live.answer(
            "run_task", {"action": "cancel"}, id="deploy", wait_seconds=50
        )
        assert (run["status"], len(forms)) == ("waiting", 1)
        run, forms = await live.answer("answer_run", {"action": "decline"}, run_id=run["run_id"])
        assert (run["status"], run["reason"], len(forms)) == ("cancelled", "declined", 1)


async def test_waiting_without_an_answer_ends_with_the_question_still_open(serve: Serve) -> None:
    async with serve() as live:
        live.write("deploy", DEPLOY)
        await live.sync()
        run = await asked(live, "deploy")
        still = await live.call("get_run", run_id=run["run_id"], wait_seconds=1)
        assert still["status"] == "waiting"
        missing = await live.call("answer_run", run_id=run["run_id"])
        assert missing["error"]["code"] == "invalid_argument"
        assert missing["error"]["data"]["question"]["message"] == "Deploy v1?"
