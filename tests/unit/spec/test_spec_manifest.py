"""What surfaces show as ``spec``."""

from typing import Any

import pytest

from dicode_mcp.spec.loader import validate_text
from dicode_mcp.spec.manifest import render_manifest
from dicode_mcp.spec.model import TaskSpec

BASE: dict[str, Any] = {"name": "x", "runtime": "python", "trigger": {"manual": True}}
DOCKER = {"runtime": "docker", "docker": {"image": "alpine"}}
HEAD = "name: x\nruntime: python\n"


def shown(**spec: Any) -> dict[str, Any]:
    return render_manifest(TaskSpec.read({**BASE, **spec}))


def test_no_timeout_is_absent_where_there_is_none_by_default() -> None:
    assert "timeout" not in shown(**DOCKER)
    assert "timeout" not in shown(trigger={"daemon": True})
    assert shown()["timeout"] == "1m0s"
    assert shown(**DOCKER, timeout="5s")["timeout"] == "5s"


def test_a_timeout_that_was_switched_off_is_not_shown_as_the_default() -> None:
    again = TaskSpec.read(shown(timeout=None))
    assert again.timeout is None


def test_what_was_written_is_shown_when_it_equals_a_default() -> None:
    spec = shown(
        retry={"attempts": 2, "backoff": "1s"},
        params={"p": {"type": "string", "required": False}},
        mcp={"expose": False},
        concurrency={"limit": 1},
    )
    assert spec["retry"] == {"attempts": 2, "backoff": "1s"}
    assert spec["params"] == {"p": {"type": "string", "required": False}}
    assert spec["mcp"] == {"expose": False}
    assert spec["concurrency"] == {"limit": 1}


def test_what_was_not_written_and_says_nothing_stays_away() -> None:
    spec = shown()
    assert set(spec) == {"name", "runtime", "trigger", "timeout"}


@pytest.mark.parametrize("grant", [{"path": "/d"}, {"path": "/d", "permission": "r"}])
def test_a_grant_always_shows_what_it_permits(grant: dict[str, str]) -> None:
    spec = shown(permissions={"fs": [grant]})
    assert spec["permissions"] == {"fs": [{"path": "/d", "permission": "r"}]}


@pytest.mark.parametrize(
    ("written", "meant"),
    [("int", "number"), ("integer", "number"), ("bool", "boolean"), ("str", "string")],
)
def test_a_type_of_another_language_gets_ours(written: str, meant: str) -> None:
    text = f"{HEAD}trigger: {{manual: true}}\nparams: {{token: {{type: {written}}}}}\n"
    (problem,) = validate_text(text)
    assert (problem.line, problem.path) == (4, "params.token.type")
    assert problem.hint == f"allowed: string, number, boolean, cron; write '{meant}'"


@pytest.mark.parametrize("trigger", ["trigger:", "trigger: {}", "trigger: {manual: false}"])
def test_an_empty_trigger_names_the_kinds(trigger: str) -> None:
    (problem,) = validate_text(f"{HEAD}{trigger}\n")
    assert (problem.line, problem.message) == (3, "needs exactly one trigger, found none")
    assert problem.hint == "add one of: cron, webhook, manual, chain, daemon"


def test_a_task_set_is_told_as_one_thing() -> None:
    (problem,) = validate_text("apiVersion: dicode/v1\nkind: TaskSet\nspec: {entries: {}}\n")
    assert (problem.line, problem.path) == (2, "kind")
    assert problem.message == "a task's manifest cannot be a 'TaskSet'"
