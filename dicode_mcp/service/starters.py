"""What a new task begins with: manifest, script and a test, by runtime and trigger. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

TEMPLATES = ("python", "deno")
TRIGGERS = ("manual", "cron", "webhook", "chain", "daemon")

_HINTS = {
    "manual": "started by a call alone: run_task, the CLI, another task",
    "cron": "minute hour day month weekday; timezone: Europe/Berlin may stand beside it",
    "webhook": "served below this server's address; webhook_secret checks who calls",
    "chain": "starts when the task named has ended; its return value is the input",
    "daemon": "kept running, and started again when it ends",
}

_PYTHON = {
    "manual": """\
def main(params, log):
    log.info(f"greeting {params.get('who')}")
    return {"greeting": f"Hello, {params.get('who')}!"}
""",
    "webhook": """\
def main(params, input, log):
    log.info("called")
    return {"greeting": f"Hello, {params.get('who')}!", "received": input}
""",
    "chain": """\
def main(params, input, log):
    log.info("the task before has ended")
    return {"received": input}
""",
    "daemon": """\
import time


def main(params, log):
    beats = 0
    while True:
        log.info(f"beat {beats}")
        beats += 1
        time.sleep(float(params.get("pause")))
""",
}

_DENO = {
    "manual": """\
export default async function main({ params, log }: DicodeSdk) {
  const who = await params.get("who");
  await log.info(`greeting ${who}`);
  return { greeting: `Hello, ${who}!` };
}
""",
    "webhook": """\
export default async function main({ params, input, log }: DicodeSdk) {
  await log.info("called");
  return { greeting: `Hello, ${await params.get("who")}!`, received: input };
}
""",
    "chain": """\
export default async function main({ input, log }: DicodeSdk) {
  await log.info("the task before has ended");
  return { received: input };
}
""",
    "daemon": """\
export default async function main({ params, log }: DicodeSdk) {
  const pause = Number(await params.get("pause")) * 1000;
  for (let beats = 0;; beats++) {
    await log.info(`beat ${beats}`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
""",
}

_PYTHON_TEST = {
    "manual": """\
def test_it_greets():
    assert main({"who": "you"}, Log()) == {"greeting": "Hello, you!"}
""",
    "webhook": """\
def test_it_greets():
    answer = main({"who": "you"}, {"n": 1}, Log())
    assert answer == {"greeting": "Hello, you!", "received": {"n": 1}}
""",
    "chain": """\
def test_it_takes_what_the_task_before_returned():
    assert main({}, {"n": 1}, Log()) == {"received": {"n": 1}}
""",
    "daemon": """\
def test_it_can_be_loaded():
    assert callable(main)
""",
}

_DENO_TEST = {
    "manual": """\
Deno.test("it greets", async () => {
  const params = { get: () => Promise.resolve("you") };
  const answer = await main({ params, log } as never);
  if (answer.greeting !== "Hello, you!") throw new Error(answer.greeting);
});
""",
    "webhook": """\
Deno.test("it greets", async () => {
  const params = { get: () => Promise.resolve("you") };
  const answer = await main({ params, input: { n: 1 }, log } as never);
  if (answer.greeting !== "Hello, you!") throw new Error(answer.greeting);
});
""",
    "chain": """\
Deno.test("it takes what the task before returned", async () => {
  const answer = await main({ input: 1, log } as never);
  if (answer.received !== 1) throw new Error("it got something else");
});
""",
    "daemon": """\
Deno.test("it can be loaded", () => {
  if (typeof main !== "function") throw new Error("main is no function");
});
""",
}


def default_value(trigger: str, task_id: str) -> str | None:
    """Give what a trigger begins with; None where there is nothing to choose, or no default."""
    return {"cron": "0 9 * * *", "webhook": f"/hooks/{task_id}"}.get(trigger)


def files_of(
    *,
    template: str,
    trigger: str,
    value: str | None,
    name: str,
    description: str,
) -> Mapping[str, str]:
    """Give the files of a new task by name. ``value``: cron line, webhook path or task id."""
    kind = "manual" if trigger == "cron" else trigger
    manifest = _manifest(template, trigger, value, name, description)
    if template == "python":
        test = '"""Tests of the task."""\n\nfrom task import main\n\n\n'
        test += "class Log:\n    def info(self, message):\n        pass\n\n\n"
        if kind == "daemon":
            test = '"""Tests of the task."""\n\nfrom task import main\n\n\n'
        return {
            "task.yaml": manifest,
            "task.py": _PYTHON[kind],
            "task_test.py": test + _PYTHON_TEST[kind],
        }
    test = 'import main from "./task.ts";\n\n'
    if kind != "daemon":
        test += "const log = { info: () => Promise.resolve() };\n\n"
    return {
        "task.yaml": manifest,
        "task.ts": _DENO[kind],
        "task.test.ts": test + _DENO_TEST[kind],
    }


def _manifest(template: str, trigger: str, value: str | None, name: str, description: str) -> str:
    lines = [
        "apiVersion: dicode/v1",
        "kind: Task",
        f"name: {_quoted(name)}",
        f"description: {_quoted(description)}",
        f"runtime: {template}",
        f"# {_HINTS[trigger]}",
        "trigger:",
        f"  {_trigger(trigger, value)}",
        *_params(trigger),
        "# What is not named here is denied: net, env, fs, run, dicode.",
        "permissions: {}",
    ]
    if trigger != "daemon":
        lines.append("timeout: 60s")
    return "\n".join(lines) + "\n"


def _trigger(trigger: str, value: str | None) -> str:
    if trigger == "chain":
        return f"chain: {{from: {_quoted(value or '')}, on: success}}"
    if trigger in ("manual", "daemon"):
        return f"{trigger}: true"
    return f"{trigger}: {_quoted(value or '')}"


def _params(trigger: str) -> list[str]:
    if trigger == "chain":
        return []
    if trigger == "daemon":
        return [
            "params:",
            "  pause: {type: number, default: 60, description: Seconds between two beats}",
        ]
    return ["params:", "  who: {type: string, default: world, description: Whom to greet}"]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
