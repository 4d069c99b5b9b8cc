"""A run of a hello task in Deno, against ``deno run hello.ts`` started bare, in turn."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Limit, Result, figure
from bench.folders import write_task
from bench.house import serving
from bench.row import Plan, Row, Unmeasurable
from bench.wire import Line, call_message, line_to, value_of
from dicode_runtimes.deno.program import DenoProgram

_TASK = "hello-deno"
_MANIFEST = "name: Hello\nruntime: deno\ntrigger:\n  manual: true\n"
_SCRIPT = 'export default () => "hello";\n'
_BARE = "const main: () => string = () => 'hello';\nconsole.log(main());\n"
_REST_S = 0.15
"""Between two runs: the next process is then ready, as for a task that runs now and then."""
_WAYS = (
    ("run.deno", 0, 0.0, 2.2, "one at a time, each a new process"),
    ("run.deno-standby", 1, _REST_S, 0.6, "one now and then: its process has waited for it"),
)


def measure(plan: Plan) -> Iterator[Result]:
    deno = DenoProgram(os.environ)
    if deno.path is None or not deno.health.ok:
        raise Unmeasurable(deno.health.message)
    folder = write_task(plan.room / "tasks", _TASK, _MANIFEST, _SCRIPT)
    (folder / "task.py").rename(folder / "task.ts")
    hello = plan.room / "hello.ts"
    hello.write_text(_BARE)
    for name, standby, rest_s, bound, how in _WAYS:
        room = plan.room / name
        room.mkdir()
        ours: list[float] = []
        floor: list[float] = []
        with (
            serving(room, plan.room / "tasks", 1, standby=standby) as house,
            line_to(house.socket) as line,
        ):
            for number in range(plan.times(120, 25) + 5):
                run, bare = _run_ms(line), _bare_ms(deno.path, hello, plan.room)
                time.sleep(rest_s)
                # The first few fill Deno's caches.
                if number >= 5:
                    ours.append(run)
                    floor.append(bare)
        yield Result(
            name=name,
            what=f"run_task hello (Deno) over the socket, call → stored result, {how}",
            ours=figure("run_task", "ms", ours),
            floor=figure("deno run hello.ts, spawn to exit", "ms", floor),
            limits=(Limit("ratio", "<=", bound),),
        )


def _run_ms(line: Line) -> float:
    message = call_message("run_task", {"id": _TASK, "wait_seconds": 30})
    began = time.perf_counter()
    answer = line.ask(message)
    took = (time.perf_counter() - began) * 1000
    run = value_of(answer)
    if run["status"] != "success" or run["return_value"] != "hello":
        raise Unmeasurable(f"hello ended as {run}")
    return took


def _bare_ms(deno: str, hello: Path, room: Path) -> float:
    env = {"HOME": str(room), "DENO_DIR": str(room / "bare"), "DENO_NO_UPDATE_CHECK": "1"}
    began = time.perf_counter()
    subprocess.run(
        [deno, "run", str(hello)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return (time.perf_counter() - began) * 1000


ROW = Row("deno", "a Deno task against `deno run`", measure)
