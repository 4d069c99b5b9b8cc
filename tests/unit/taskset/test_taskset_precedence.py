"""Who wins: every pair of places a value can stand in, and every rule of merging (SPEC 2.2)."""

from itertools import combinations
from pathlib import Path
from typing import Any, cast

import pytest
from sethouse import TASK, SetHouse, broken, ids

from dicode_mcp.spec.loader import parse_document
from dicode_mcp.spec.taskset.merge import Layer, compose
from dicode_mcp.spec.taskset.patch import read_patch
from dicode_mcp.spec.yaml12 import load

LOWEST_FIRST = (
    "task.yaml",
    "defaults of the outermost set",
    "defaults of the middle set",
    "defaults of the innermost set",
    "overrides of the innermost set's entry",
    "overrides of the middle set's entry",
    "the outermost set's overrides.entries for the innermost set",
    "the entry's own overrides",
    "the middle set's overrides.entries",
    "the outermost set's overrides.entries",
)
"""SPEC 2.2 for a task three sets deep, written out."""


def three_deep(values: dict[str, str]) -> dict[str, str]:
    """Write ``values`` (a line of YAML each, by place) into a task three sets deep."""

    def at(place: str) -> str:
        return f"{{{values[place]}}}" if place in values else "{}"

    task = values.get("task.yaml", "")
    return {
        "taskset.yaml": f"""
            kind: TaskSet
            metadata: {{name: o}}
            spec:
              defaults: {at(LOWEST_FIRST[1])}
              entries:
                mid:
                  ref: {{path: mid}}
                  overrides:
                    {values.get(LOWEST_FIRST[5], "name: x")}
                    entries:
                      inner:
                        {values.get(LOWEST_FIRST[6], "name: x")}
                        entries:
                          leaf: {at(LOWEST_FIRST[9])}
            """,
        "mid/taskset.yaml": f"""
            kind: TaskSet
            spec:
              defaults: {at(LOWEST_FIRST[2])}
              entries:
                inner:
                  ref: {{path: inner}}
                  overrides:
                    {values.get(LOWEST_FIRST[4], "name: x")}
                    entries:
                      leaf: {at(LOWEST_FIRST[8])}
            """,
        "mid/inner/taskset.yaml": f"""
            kind: TaskSet
            spec:
              defaults: {at(LOWEST_FIRST[3])}
              entries:
                leaf:
                  ref: {{path: leaf}}
                  overrides: {at(LOWEST_FIRST[7])}
            """,
        "mid/inner/leaf/task.yaml": TASK + (f"{task}\n" if task else ""),
    }


@pytest.mark.parametrize(("lower", "higher"), list(combinations(LOWEST_FIRST, 2)))
def test_of_two_places_the_higher_one_decides_a_value(
    tmp_path: Path, lower: str, higher: str
) -> None:
    files = three_deep({lower: "timeout: 11s", higher: "timeout: 22s"})
    task = SetHouse(tmp_path / "set").write(files).task("o/mid/inner/leaf")
    assert task.spec.timeout == 22


@pytest.mark.parametrize(("lower", "higher"), list(combinations(LOWEST_FIRST[1:], 2)))
@pytest.mark.parametrize("wins", [True, False])
def test_of_two_places_the_higher_one_decides_whether_a_task_is_on(
    tmp_path: Path, lower: str, higher: str, wins: bool
) -> None:
    on, off = ("enabled: true", "enabled: false")
    files = three_deep({lower: off if wins else on, higher: on if wins else off})
    found = SetHouse(tmp_path / "set").write(files).resolve()
    assert ids(found) == (["o/mid/inner/leaf"] if wins else [])
    assert [off.reason for off in found.off] == ([] if wins else ["disabled"])


def test_all_places_at_once(tmp_path: Path) -> None:
    files = three_deep({p: f"timeout: {n + 10}s" for n, p in enumerate(LOWEST_FIRST)})
    house = SetHouse(tmp_path / "set").write(files)
    assert house.task("o/mid/inner/leaf").spec.timeout == 19
    origin = house.origins("o/mid/inner/leaf")["timeout"]
    assert origin.source.layer == "overrides.entries.inner.leaf of o/mid"
    assert [(s.layer, s.file) for s in origin.over] == [
        ("overrides.entries.leaf of o/mid/inner", "mid/taskset.yaml"),
        ("overrides of o/mid/inner/leaf", "mid/inner/taskset.yaml"),
        ("overrides.entries.inner of o/mid", "taskset.yaml"),
        ("overrides of o/mid", "taskset.yaml"),
        ("overrides of o/mid/inner", "mid/taskset.yaml"),
        ("defaults of o/mid/inner", "mid/inner/taskset.yaml"),
        ("defaults of o/mid", "mid/taskset.yaml"),
        ("defaults of o", "taskset.yaml"),
        ("task.yaml", "task.yaml"),
    ]


def test_an_entry_beside_its_overrides_switches_like_them(tmp_path: Path) -> None:
    files = three_deep({LOWEST_FIRST[8]: "enabled: true"})
    inner = files["mid/inner/taskset.yaml"]
    files["mid/inner/taskset.yaml"] = inner.replace("overrides: {}", "enabled: false")
    assert ids(SetHouse(tmp_path / "set").write(files).resolve()) == ["o/mid/inner/leaf"]


BASE = """
name: base
runtime: python
description: the task's own
tags: [one, two]
trigger: {cron: "0 * * * *", timezone: Europe/Berlin, jitter: 5s}
timeout: 5m
params:
  repo: {description: which, type: string, default: main, required: true}
  limit: {type: number, default: 10, enum: [10, 20]}
  plain: hello
permissions:
  env: [HOME_ONE, "LEVEL=info", {name: TOKEN, secret: token}]
  net: [a.example.org, b.example.org]
  run: [git]
  sys: [hostname]
  fs: [{path: data, permission: r}]
  dicode: {list_tasks: true, tasks: [a]}
retry: {attempts: 3, backoff: 2s}
concurrency: {limit: 2, overlap: queue}
notify: {on_success: true, on_failure: true}
resources: {memory: 1GiB, pids: 9}
on_failure_chain: {task: alert, params: {room: ops}}
output_schema: {type: object, required: [a]}
"""

GONE = object()
RULES: tuple[tuple[str, str, str, Any], ...] = (
    # scalars replace
    ("a name", "name: other", "name", "other"),
    ("a description", "description: other", "description", "other"),
    ("a timeout", "timeout: 9s", "timeout", "9s"),
    ("a runtime", "runtime: deno", "runtime", "deno"),
    ("a version that looks like a number", "version: 1.10", "version", "1.10"),
    # null removes
    ("a null removes a scalar", "timeout: null", "timeout", GONE),
    ("a null removes a map", "retry: null", "retry", GONE),
    ("a null removes a key of a map", "retry: {backoff: null}", "retry", {"attempts": 3}),
    ("a null removes a list", "net: null", "permissions.net", GONE),
    ("a null removes every permission", "permissions: null", "permissions", GONE),
    (
        "permissions: null leaves what stands beside it",
        "permissions: null\nnet: [c.example.org]",
        "permissions",
        {"net": ["c.example.org"]},
    ),
    ("a null for what is not there changes nothing", "mcp: null", "mcp", GONE),
    # params merge by name, in order
    ("a scalar is a parameter's default", "params: {repo: dev}", "params.repo.default", "dev"),
    ("the type of such a parameter stays", "params: {limit: 20}", "params.limit.type", "number"),
    ("the default of a short parameter", "params: {plain: bye}", "params.plain", "bye"),
    (
        "a map changes the fields it has",
        "params: {repo: {required: false}}",
        "params.repo",
        {"description": "which", "type": "string", "default": "main", "required": False},
    ),
    ("a new parameter", "params: {new: {type: number}}", "params.new", {"type": "number"}),
    (
        "new parameters come last",
        "params: {new: 1, repo: x}",
        "params",
        ["repo", "limit", "plain", "new"],
    ),
    ("a null removes a parameter", "params: {limit: null}", "params.limit", GONE),
    (
        "a list of parameters does the same",
        "params: [{name: repo, default: z}]",
        "params.repo.default",
        "z",
    ),
    ("so does its short form", "params: [repo: z]", "params.repo.default", "z"),
    ("a null removes a field of one", "params: {limit: {enum: null}}", "params.limit.enum", GONE),
    # env merges by name, in order
    (
        "an env entry of the same name takes its place",
        "env: [LEVEL=debug]",
        "permissions.env",
        ["HOME_ONE", "LEVEL=debug", {"name": "TOKEN", "secret": "token"}],
    ),
    (
        "its origin is replaced whole",
        "env: [{name: TOKEN, value: x}]",
        "permissions.env",
        ["HOME_ONE", "LEVEL=info", {"name": "TOKEN", "value": "x"}],
    ),
    (
        "a new one comes last",
        "env: [NEW, LEVEL=debug]",
        "permissions.env",
        ["HOME_ONE", "LEVEL=debug", {"name": "TOKEN", "secret": "token"}, "NEW"],
    ),
    (
        "a null value takes a variable away",
        "env: [{name: LEVEL, value: null}]",
        "permissions.env",
        ["HOME_ONE", {"name": "TOKEN", "secret": "token"}],
    ),
    ("an empty list of env adds nothing", "env: []", "permissions.env.0", "HOME_ONE"),
    ("a null removes every variable", "env: null", "permissions.env", GONE),
    (
        "env may stand under permissions",
        "permissions: {env: [LEVEL=x]}",
        "permissions.env.1",
        "LEVEL=x",
    ),
    # these lists replace, an empty one included
    ("net replaces", "net: [c.example.org]", "permissions.net", ["c.example.org"]),
    ("an empty net replaces", "net: []", "permissions.net", []),
    ("run replaces", "run: [ls]", "permissions.run", ["ls"]),
    ("an empty run replaces", "run: []", "permissions.run", []),
    ("sys replaces", "sys: [uid]", "permissions.sys", ["uid"]),
    ("an empty sys replaces", "sys: []", "permissions.sys", []),
    ("fs replaces", "fs: [{path: x}]", "permissions.fs", [{"path": "x"}]),
    ("an empty fs replaces", "fs: []", "permissions.fs", []),
    ("tags replace", "tags: [three]", "tags", ["three"]),
    ("an empty list of tags replaces", "tags: []", "tags", []),
    ("net under permissions replaces", "permissions: {net: []}", "permissions.net", []),
    ("what permissions does not name stays", "permissions: {net: []}", "permissions.run", ["git"]),
    # a trigger
    (
        "the same kind changes its value and keeps its options",
        'trigger: {cron: "5 * * * *"}',
        "trigger",
        {"cron": "5 * * * *", "timezone": "Europe/Berlin", "jitter": "5s"},
    ),
    (
        "another kind replaces the whole trigger",
        "trigger: {manual: true}",
        "trigger",
        {"manual": True},
    ),
    (
        "with the old kind set to null too",
        "trigger: {cron: null, webhook: /hooks/x}",
        "trigger",
        {"webhook": "/hooks/x"},
    ),
    ("an option alone changes that option", "trigger: {timezone: UTC}", "trigger.timezone", "UTC"),
    (
        "an option alone keeps the value",
        "trigger: {jitter: null}",
        "trigger",
        {"cron": "0 * * * *", "timezone": "Europe/Berlin"},
    ),
    # these merge per key
    (
        "dicode merges per key",
        "dicode: {get_runs: true}",
        "permissions.dicode",
        {"list_tasks": True, "tasks": ["a"], "get_runs": True},
    ),
    ("a list inside dicode replaces", "dicode: {tasks: []}", "permissions.dicode.tasks", []),
    (
        "notify merges per key",
        "notify: {on_success: false}",
        "notify",
        {"on_success": False, "on_failure": True},
    ),
    ("retry merges per key", "retry: {attempts: 5}", "retry", {"attempts": 5, "backoff": "2s"}),
    (
        "concurrency merges per key",
        "concurrency: {limit: 1}",
        "concurrency",
        {"limit": 1, "overlap": "queue"},
    ),
    ("resources merge per key", "resources: {pids: 5}", "resources", {"memory": "1GiB", "pids": 5}),
    ("a map that is not there is made", "budget: {runs: 3}", "budget", {"runs": 3}),
    # these are one value
    ("a failure chain is one value", "on_failure_chain: other", "on_failure_chain", "other"),
    ("a schema is one value", "output_schema: {type: array}", "output_schema", {"type": "array"}),
)


@pytest.mark.parametrize(
    ("patch", "path", "wanted"), [r[1:] for r in RULES], ids=[r[0] for r in RULES]
)
def test_a_patch_is_merged_by_the_rules(patch: str, path: str, wanted: Any) -> None:
    read = read_patch(load(patch, "taskset.yaml"), targets=True)
    merged = compose(parse_document(BASE), [Layer("overrides", "s/x", read)]).document.data
    found = _at(merged, path)
    if isinstance(found, dict) and isinstance(wanted, list):
        found = list(cast(dict[str, Any], found))
    assert found == wanted or (found is GONE and wanted is GONE)


def _at(data: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(data, list):
            data = cast(list[Any], data)[int(key)]
        elif key in data:
            data = data[key]
        else:
            return GONE
    return data


def test_merging_leaves_the_manifest_that_was_read_alone() -> None:
    document = parse_document(BASE)
    before = repr(document)
    read = read_patch(load("params: {repo: x}\nenv: [LEVEL=x]\nnet: []", "t"), targets=True)
    compose(document, [Layer("overrides", "s/x", read)])
    assert repr(document) == before


def test_a_list_of_parameters_in_the_manifest_merges_by_name_too(tmp_path: Path) -> None:
    house = SetHouse(tmp_path / "set").write(
        {
            "taskset.yaml": """
                kind: TaskSet
                spec:
                  entries:
                    a: {ref: {path: a}, overrides: {params: {second: 2, third: 3}}}
                """,
            "a/task.yaml": TASK + "params:\n  - {name: first, default: 1}\n  - second: 0\n",
        }
    )
    params = house.task("set/a").spec.params
    assert [(p.name, p.default) for p in params] == [
        ("first", "1"),
        ("second", "2"),
        ("third", "3"),
    ]


BAD: tuple[tuple[str, str, str], ...] = (
    ("timout: 5s", "overrides.timout", "did you mean 'timeout'?"),
    ("netwrk: []", "overrides.netwrk", "unknown key"),
    ("permissions: {nett: []}", "overrides.permissions.nett", "did you mean 'net'?"),
    ("script: x", "overrides.script", "cannot be overridden"),
    ("kind: Task", "overrides.kind", "belongs to the task's own file"),
    ("docker: {build: {}}", "overrides.docker.build", "cannot be overridden"),
    ("env: {A: b}", "overrides.env", "must be a list"),
    ("params: 5", "overrides.params", "must be a map"),
    ("notify: true", "overrides.notify", "must be a map"),
    ("net: [], permissions: {net: []}", "overrides.permissions.net", "is there twice"),
    ("env: [A=1, A=2]", "overrides.env[1]", "'A' is there twice"),
    ("enabled: yes please", "overrides.enabled", "must be true or false"),
    ("entries: []", "overrides.entries", "must be a map of entries"),
    ("entries: {b: {timout: 1}}", "overrides.entries.b.timout", "did you mean 'timeout'?"),
)


@pytest.mark.parametrize(("patch", "path", "bits"), BAD)
def test_a_bad_override_is_an_error_of_its_entry_alone(
    tmp_path: Path, patch: str, path: str, bits: str
) -> None:
    house = SetHouse(tmp_path / "set").write(
        {
            "taskset.yaml": f"""
    kind: TaskSet
    spec:
      entries:
        good: {{ref: {{path: a}}}}
        bad:
          ref: {{path: a}}
          overrides: {{{patch}}}
    """,
            "a/task.yaml": TASK,
        }
    )
    found = house.resolve()
    assert ids(found) == ["set/good"]
    problem = broken(found)["set/bad"].problems[0]
    assert (problem.file, problem.path) == ("taskset.yaml", f"spec.entries.bad.{path}")
    assert problem.line == 8
    assert bits in str(problem)
