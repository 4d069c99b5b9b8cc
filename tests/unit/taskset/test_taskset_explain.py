"""Which line each value is from, and faults that name the line that brought them."""

from pathlib import Path

import pytest
from sethouse import TASK, SetHouse, broken

from dicode_mcp.spec.problems import SpecError

SET = """\
kind: TaskSet
metadata: {name: infra}
spec:
  defaults:
    timeout: 60s
    env:
      - LEVEL=info
  entries:
    deploy:
      ref: {path: deploy}
      overrides:
        params:
          where: staging
        net: []
"""
DEPLOY = """\
name: deploy
runtime: python
trigger:
  cron: "0 * * * *"
params:
  where: {description: place, default: prod}
permissions:
  env: [LEVEL=debug, HOST_VARIABLE]
  net: [example.org]
"""


@pytest.fixture
def house(tmp_path: Path) -> SetHouse:
    return SetHouse(tmp_path / "r").write({"taskset.yaml": SET, "deploy/task.yaml": DEPLOY})


def test_each_value_names_its_layer_file_and_line(house: SetHouse) -> None:
    origins = house.origins("infra/deploy")
    assert {
        path: (o.source.layer, o.source.file, o.source.line) for path, o in origins.items()
    } == {
        "name": ("task.yaml", "task.yaml", 1),
        "runtime": ("task.yaml", "task.yaml", 2),
        "trigger.cron": ("task.yaml", "task.yaml", 4),
        "trigger.catchup": ("built-in default", "", 0),
        "params.where.description": ("task.yaml", "task.yaml", 6),
        "params.where.default": ("overrides of infra/deploy", "taskset.yaml", 13),
        "params.where.type": ("built-in default", "", 0),
        "permissions.env[0]": ("defaults of infra", "taskset.yaml", 7),
        "permissions.env[1]": ("task.yaml", "task.yaml", 8),
        "permissions.net": ("overrides of infra/deploy", "taskset.yaml", 14),
        "timeout": ("defaults of infra", "taskset.yaml", 5),
    }


def test_what_a_value_won_over_is_named_nearest_first(house: SetHouse) -> None:
    origins = house.origins("infra/deploy")
    over = {path: [(s.layer, s.line) for s in o.over] for path, o in origins.items() if o.over}
    assert over == {
        "params.where.default": [("task.yaml", 6)],
        "permissions.env[0]": [("task.yaml", 8)],
        "permissions.net": [("task.yaml", 9)],
    }


def test_a_default_that_a_null_restored_names_who_restored_it(house: SetHouse) -> None:
    text = SET.replace("        net: []\n", "        timeout: null\n")
    house.write({"taskset.yaml": text})
    timeout = house.origins("infra/deploy")["timeout"]
    assert timeout.source.layer == "built-in default, restored by overrides of infra/deploy"
    assert (timeout.source.file, timeout.source.line) == ("taskset.yaml", 14)
    assert [s.layer for s in timeout.over] == ["defaults of infra"]


def test_a_task_without_a_set_explains_itself(tmp_path: Path) -> None:
    house = SetHouse(tmp_path / "r").write({"plain/task.yaml": DEPLOY})
    assert {o.source.layer for o in house.origins("plain").values()} == {
        "task.yaml",
        "built-in default",
    }


@pytest.mark.parametrize(
    ("old", "new", "place", "path"),
    [
        ("timeout: 60s", "timeout: sixty", "taskset.yaml:5", "timeout"),
        ("- LEVEL=info", "- LEVEL info", "taskset.yaml:7", "permissions.env[2]"),
        ("where: staging", "where: {type: date}", "taskset.yaml:13", "params.where.type"),
        ("net: []", "net: [https://x]", "taskset.yaml:14", "permissions.net[0]"),
        ("net: []", "trigger: {timezone: Mars}", "taskset.yaml:14", "trigger.timezone"),
        ("net: []", "name: null", "taskset.yaml:14", "name"),
        ("net: []", "trigger: {webhook: nope}", "taskset.yaml:14", "trigger.webhook"),
        ("net: []", "dicode: {list_task: true}", "taskset.yaml:14", "permissions.dicode.list_task"),
        ("net: []", "runtime: phyton", "taskset.yaml:14", "runtime"),
    ],
)
def test_a_bad_value_is_told_where_it_was_written(
    house: SetHouse, old: str, new: str, place: str, path: str
) -> None:
    house.write({"taskset.yaml": SET.replace(old, new)})
    with pytest.raises(SpecError) as caught:
        house.task("infra/deploy")
    assert any(str(p).startswith(f"{place}: {path}: ") for p in caught.value.problems), str(
        caught.value
    )


def test_a_bad_value_of_the_task_itself_is_told_in_its_own_file(house: SetHouse) -> None:
    house.write({"deploy/task.yaml": DEPLOY.replace("name: deploy", "name: 5\nnme: x")})
    with pytest.raises(SpecError) as caught:
        house.task("infra/deploy")
    assert [str(p).split(": ")[0] for p in caught.value.problems] == ["task.yaml:1", "task.yaml:2"]


def test_a_bad_value_of_an_inline_task_is_told_in_the_set(tmp_path: Path) -> None:
    house = SetHouse(tmp_path / "r").write(
        {
            "taskset.yaml": """\
                kind: TaskSet
                spec:
                  entries:
                    x:
                      inline:
                        name: x
                        runtime: python
                        trigger: {cron: never}
                        script: |
                          result = 1
                """
        }
    )
    assert not broken(house.resolve())
    with pytest.raises(SpecError) as caught:
        house.inline_task("r/x", tmp_path / "inline")
    assert str(caught.value.problems[0]).startswith("taskset.yaml:8: trigger.cron: ")


def test_templates_know_the_sets_folder_and_the_sources_root(tmp_path: Path) -> None:
    house = SetHouse(tmp_path / "r").write(
        {
            "taskset.yaml": "kind: TaskSet\nspec: {entries: {m: {ref: {path: m}}}}\n",
            "m/taskset.yaml": """\
                kind: TaskSet
                spec:
                  entries:
                    t:
                      ref: {path: ../t}
                      overrides:
                        env:
                          - {name: A, value: "${TASK_SET_DIR}"}
                          - {name: B, value: "${SOURCE_ROOT}"}
                """,
            "t/task.yaml": TASK,
        }
    )
    values = [entry.value for entry in house.task("r/m/t").spec.permissions.env]
    assert values == [str(tmp_path / "r" / "m"), str(tmp_path / "r")]


def test_the_hash_of_a_task_in_a_checkout_outlives_the_commit_around_it(tmp_path: Path) -> None:
    task = TASK + "permissions: {fs: [{path: data}, {path: '${SOURCE_ROOT}/x'}]}\n"
    digests: set[str] = set()
    for commit in ("1", "2"):
        house = SetHouse(tmp_path / f"tree{commit}").write({"t/task.yaml": task})
        loaded = house.loader.load(
            house.root / "t",
            task_id="t",
            source="s",
            source_root=house.root,
            revision=commit * 40,
        )
        digests.add(loaded.digest)
    assert len(digests) == 1
