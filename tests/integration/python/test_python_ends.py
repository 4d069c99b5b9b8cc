"""How a Python task ends, above all badly."""

from __future__ import annotations

import signal
import sys
import textwrap

import pytest
from runhouse import House, marked

from dicode_mcp.testing.waiting import until


async def test_an_exception_names_file_line_and_the_way_there(house: House) -> None:
    house.write("def deep(x):\n    return 1 / x\n", "helper.py")
    ended = await house.run("import helper\n\ndef main():\n    return helper.deep(0)\n")
    error = ended.report.error
    assert error is not None
    assert ended.report.reason == "script_error"
    assert error.message == "ZeroDivisionError: division by zero"
    assert (error.file, error.line) == ("helper.py", 2)
    assert error.traceback is not None
    assert 'File "task.py", line 4, in main' in error.traceback
    assert "return 1 / x" in error.traceback
    assert "_bootstrap" not in error.traceback
    assert str(house.folder) not in error.traceback
    assert ended.exit.exit_code == 1
    assert any("division by zero" in message for message in ended.messages)


@pytest.mark.parametrize(
    "raised", ["NoRetry('the invoice is void')", "Void('the invoice is void')"]
)
async def test_an_error_that_says_so_is_told_apart_so_that_nobody_tries_again(
    house: House, raised: str
) -> None:
    ended = await house.run(
        f"""
        from dicode_sdk import NoRetry

        class Void(NoRetry):
            pass

        def main():
            raise {raised}
        """
    )
    error = ended.report.error
    assert error is not None
    assert (ended.report.reason, error.code) == ("no_retry", "no_retry")
    assert error.message.endswith("the invoice is void")
    assert error.line == 8


async def test_an_error_in_an_asynchronous_main_shows_no_frames_of_asyncio(house: House) -> None:
    ended = await house.run("async def main():\n    raise KeyError('k')\n")
    error = ended.report.error
    assert error is not None
    assert (error.file, error.line) == ("task.py", 2)
    assert "asyncio" not in (error.traceback or "")


async def test_a_syntax_error_names_its_line(house: House) -> None:
    ended = await house.run("x = 1\nif x\n    pass\n")
    error = ended.report.error
    assert error is not None
    assert (error.file, error.line) == ("task.py", 2)
    assert error.message.startswith("SyntaxError:")


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("import sys; sys.exit(3)", 3, "the script called sys.exit(3)"),
        ("import sys; sys.exit('no disk')", 1, "no disk"),
    ],
)
async def test_sys_exit_with_a_failure_is_one(
    house: House, script: str, code: int, message: str
) -> None:
    ended = await house.run(script)
    assert ended.report.reason == "exit_code"
    assert ended.report.error is not None
    assert ended.report.error.message == message
    assert ended.exit.exit_code == code


async def test_sys_exit_with_success_keeps_the_result(house: House) -> None:
    ended = await house.run("import sys\nresult = 9\nsys.exit()\n")
    assert ended.value == 9


@pytest.mark.parametrize(
    ("expression", "reason", "words"),
    [
        ("'x' * 5_000_000", "return_too_large", "5,000,002 bytes"),
        ("{'a': [1, float('nan')]}", "return_not_json", "$.a[1]: nan"),
        ("{'when': __import__('datetime').date(2024, 1, 1)}", "return_not_json", "$.when"),
        ("{1: 2}", "return_not_json", "a key is int"),
        ("{'s': {1, 2}}", "return_not_json", "$.s: set"),
        ("b'raw'", "return_not_json", "$: bytes"),
        ("'\\ud800'", "return_not_json", "surrogate"),
    ],
)
async def test_a_return_value_that_cannot_be_stored_says_where_and_why(
    house: House, expression: str, reason: str, words: str
) -> None:
    ended = await house.run(f"def main():\n    return {expression}\n")
    assert ended.report.reason == reason
    assert ended.report.error is not None
    assert words in ended.report.error.message
    assert ended.report.return_value is None
    assert ended.exit.exit_code == 1


async def test_the_largest_return_value_arrives_whole(house: House) -> None:
    ended = await house.run("result = '\"' * (512 * 1024 - 1)")
    assert ended.value == '"' * (512 * 1024 - 1)


async def test_leaving_without_a_word_is_noticed(house: House) -> None:
    ended = await house.run("import os\nos._exit(0)\n")
    assert not ended.report.finished
    why = house.runtime.explain(ended.exit, house.task())
    assert why is not None
    assert why.code == "exited_early"


async def test_death_by_a_signal_is_named(house: House) -> None:
    ended = await house.run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    assert ended.exit.signal == signal.SIGSEGV
    assert ended.exit.exit_code is None
    why = house.runtime.explain(ended.exit, house.task())
    assert why is not None
    assert why.code == "signal"
    assert "SIGSEGV" in why.message


async def test_sleeping_past_the_timeout_ends_the_run(house: House) -> None:
    ended = await house.run("import time\ntime.sleep(60)\n", limit=0.3)
    assert ended.exit.timed_out
    assert ended.exit.signal == signal.SIGTERM
    why = house.runtime.explain(ended.exit, house.task(timeout=0.3))
    assert why is not None
    assert why.message.endswith("0.3s")


async def test_a_task_that_ignores_term_is_killed_after_the_grace(house: House) -> None:
    ended = await house.run(
        """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready")
        time.sleep(60)
        """,
        grace=0.3,
        stop_on="ready",
    )
    assert ended.exit.stopped
    assert not ended.exit.timed_out
    assert ended.exit.signal == signal.SIGKILL


async def test_a_task_may_tidy_up_on_term(house: House) -> None:
    ended = await house.run(
        """
        import signal, sys, time

        def tidy(*_):
            kv.set("tidied", True)
            sys.exit(4)

        signal.signal(signal.SIGTERM, tidy)
        print("ready")
        time.sleep(60)
        """,
        stop_on="ready",
    )
    assert ended.exit.stopped
    assert ended.exit.exit_code == 4
    assert house.calls.kv == {"tidied": True}


_DAEMONS = """
    import os, sys, time

    def daemon(ignore):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                if ignore:
                    import signal
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                print("daemon", os.getpid(), flush=True)
                time.sleep(600)
            os._exit(0)

    for n in range(3):
        daemon(ignore=n == 0)
    os.wait(); os.wait(); os.wait()
    if os.fork() == 0:
        time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="fled processes are found through /proc")
async def test_nothing_of_a_tree_outlives_the_run_not_even_daemons(house: House) -> None:
    ended = await house.run(textwrap.dedent(_DAEMONS) + "result = 'left them'\n", grace=0.3)
    assert ended.value == "left them"
    assert ended.exit.exit_code == 0
    assert ended.exit.strays == 4
    # The run ends when its cage is empty; what watched the cage is gone a moment later.
    await until(lambda: marked(f"DICODE_RUN_ID={next(house.scratch.iterdir()).name}") == [])


@pytest.mark.skipif(sys.platform != "linux", reason="fled processes are found through /proc")
async def test_a_cancelled_run_takes_its_daemons_along(house: House) -> None:
    script = textwrap.dedent(_DAEMONS) + "print('all up', flush=True)\ntime.sleep(600)\n"
    ended = await house.run(script, grace=0.3, stop_on="all up")
    assert ended.exit.stopped
    await until(lambda: marked(f"DICODE_RUN_ID={next(house.scratch.iterdir()).name}") == [])


async def test_writing_nonsense_to_the_server_ends_the_talk_and_is_told(house: House) -> None:
    ended = await house.run(
        """
        import os
        os.write(int(os.environ["DICODE_IPC_FD"]), b"not json\\n")
        result = 1
        """
    )
    assert ended.report.reason == "protocol_error"
