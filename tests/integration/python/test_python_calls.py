"""What a running Python task may ask of the server."""

from __future__ import annotations

from runhouse import House

from dicode_mcp.spec.model import DicodeGrants, Permissions


async def test_kv_values_stay_and_can_be_listed(house: House) -> None:
    script = """
        def main():
            kv.set("a/1", {"n": [1, None, "ü"]})
            kv.set("b", 2)
            return [kv.get("a/1"), kv.get("none", "x"), kv.list("a/"), kv.delete("b"),
                    kv.delete("b")]
        """
    ended = await house.run(script)
    assert ended.value == [{"n": [1, None, "ü"]}, "x", ["a/1"], True, False]
    assert house.calls.kv == {"a/1": {"n": [1, None, "ü"]}}


async def test_a_call_without_its_permission_names_the_line_to_add(house: House) -> None:
    ended = await house.run('def main():\n    dicode.run_task("other", {})\n')
    error = ended.report.error
    assert error is not None
    assert error.hint == 'add to task.yaml: permissions.dicode.tasks: ["other"]'
    assert (error.file, error.line) == ("task.py", 2)
    assert error.traceback is not None
    assert "_channel" not in error.traceback


async def test_a_granted_call_runs_the_other_task(house: House) -> None:
    grants = Permissions(dicode=DicodeGrants(tasks=("other",), list_tasks=True, get_runs=True))
    ended = await house.run(
        """
        def main():
            dicode.progress(1, 2, "half")
            return [dicode.run_task("other", {"x": 1}), dicode.trigger("other", [2]),
                    dicode.list_tasks(), len(dicode.get_runs("other", 5))]
        """,
        permissions=grants,
    )
    child = {"runID": "child-other", "status": "success", "returnValue": {"x": 1}}
    assert ended.value == [child, {"runID": "child-other"}, [{"id": "test"}], 1]
    assert ("progress", (1, 2, "half")) in house.calls.asked


async def test_a_replay_may_be_as_it_was_or_edited(house: House) -> None:
    ended = await house.run(
        """
        async def main():
            dicode.runs.replay("r1")
            dicode.runs.replay("r2", {"n": 1}, input=None)
            return await dicode.runs.replay_async("r3", params={"n": 2})
        """,
        permissions=Permissions(dicode=DicodeGrants(runs_replay=True)),
    )
    assert ended.value["runID"] == "again-r3"
    assert [args for name, args in house.calls.asked if name == "replay"] == [
        ("r1", {}, {}),
        ("r2", {"n": 1}, {"input": None}),
        ("r3", {"n": 2}, {}),
    ]
    refused = await house.run('def main():\n    dicode.runs.replay("r1")\n')
    assert refused.report.error is not None
    assert refused.report.error.hint == "add to task.yaml: permissions.dicode.runs_replay: true"


async def test_asynchronous_calls_are_served_at_once(house: House) -> None:
    grants = Permissions(dicode=DicodeGrants(tasks=("other",)))
    house.calls.wait_for_all_of(20)
    ended = await house.run(
        """
        import asyncio

        async def main():
            kv.set("sync", 1)
            found = await asyncio.gather(
                *(dicode.run_task_async("other", {"n": n}) for n in range(20)))
            return [f["returnValue"]["n"] for f in found] + [kv.get("sync")]
        """,
        permissions=grants,
    )
    assert ended.value == [*range(20), 1]


async def test_threads_may_call_side_by_side(house: House) -> None:
    grants = Permissions(dicode=DicodeGrants(tasks=("other",)))
    ended = await house.run(
        """
        from concurrent.futures import ThreadPoolExecutor

        def work(n):
            kv.set(f"k{n}", n)
            return dicode.run_task("other", {"n": kv.get(f"k{n}")})["returnValue"]["n"]

        def main():
            with ThreadPoolExecutor(8) as pool:
                return sum(pool.map(work, range(200)))
        """,
        permissions=grants,
    )
    assert ended.value == sum(range(200))


async def test_a_thread_left_running_is_awaited_and_may_still_call(house: House) -> None:
    ended = await house.run(
        """
        import atexit, threading, time

        def later():
            time.sleep(0.1)
            kv.set("late", True)

        atexit.register(lambda: print("atexit ran"))
        threading.Thread(target=later).start()
        result = "main is done"
        """
    )
    assert ended.value == "main is done"
    assert house.calls.kv == {"late": True}
    assert "atexit ran" in ended.messages


async def test_a_method_the_server_does_not_have_says_so(house: House) -> None:
    ended = await house.run('dicode.sources.set_dev_mode("hunter2-value", True)\n')
    error = ended.report.error
    assert error is not None
    assert "does not offer sources.set_dev_mode" in error.message
    assert "hunter2-value" not in error.message


async def test_a_secret_is_set_by_a_task_that_may(house: House) -> None:
    script = 'dicode.secrets_set("k", "hunter2" + "-value"); dicode.secrets_delete("other")\n'
    ended = await house.run(script)
    error = ended.report.error
    assert error is not None
    assert "permissions.dicode.secrets_write: true" in (error.hint or "")
    assert "hunter2-value" not in repr(ended)
    allowed = Permissions(dicode=DicodeGrants(secrets_write=True))
    await house.run(script, permissions=allowed)
    assert house.calls.secrets == {"k": "hunter2-value"}


async def test_a_forked_child_cannot_speak_for_the_task(house: House) -> None:
    ended = await house.run(
        """
        import os, sys
        pid = os.fork()
        if pid == 0:
            try:
                kv.set("x", 1)
            except Exception as error:
                print("child:", error, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        result = kv.get("x", "unset")
        """
    )
    assert ended.value == "unset"
    assert any("only the process that the server started" in m for m in ended.messages)


async def test_output_is_kept_even_when_the_script_fails_later(house: House) -> None:
    ended = await house.run('output.html("<b>hi</b>", data={"a": 1})\nraise ValueError("x")\n')
    shown = ended.report.output
    assert shown is not None
    assert (shown.kind, shown.body, shown.data) == ("html", "<b>hi</b>", {"a": 1})
    assert ended.report.reason == "script_error"


async def test_files_and_images_travel_as_base64(house: House) -> None:
    ended = await house.run('output.file("r.bin", bytes([0, 255]), "application/x-r")\nresult = 1')
    shown = ended.report.output
    assert shown is not None
    assert (shown.kind, shown.name, shown.body, shown.base64) == ("file", "r.bin", "AP8=", True)


async def test_an_output_beyond_the_limit_fails_with_that_reason(house: House) -> None:
    ended = await house.run('output.text("x" * 3_000_000)')
    assert ended.report.reason == "output_too_large"
