from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dicode_mcp.errors import Code
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.model import EnvEntry, Task
from dicode_mcp.spec.problems import SpecError

BASE = "name: T\nruntime: python\ntrigger: {manual: true}\n"

FULL = """
apiVersion: dicode/v1
kind: Task
name: My Task
description: A short description of what this task does.
runtime: python
version: 1.10
tags: [a, b]
trigger:
  webhook: /hooks//my-task/
  webhook_secret: "${SECRET}"
params:
  repo: denoland/deno
permissions:
  env:
    - HOME
    - MODE=fast
    - {name: API_KEY, from: GH_TOKEN}
    - {name: OTHER, from: "env:${WHICH}"}
    - {name: DB_PASS, secret: db_password, optional: true}
    - {name: KEY, from: "task:providers/vault", if_missing: {task: alert}}
    - {name: PLACE, value: "${TASK_DIR}/${SECRET}"}
    - {name: RATE, value: 1.50}
  fs:
    - {path: data, permission: rw}
    - {path: "~/notes"}
    - {path: "${SKILLS_DIR}", permission: r}
    - {path: "/srv/${WHICH}/x"}
  net: [api.github.com, "localhost:8080", "[::1]:443", "*", "*.example.com", "*.a.example:8443"]
  run: [git]
  sys: [hostname]
  dicode: {tasks: ["*"], mcp: [my-mcp], list_tasks: true}
timeout: 1h30m
retry: {attempts: 3, backoff: 5s}
resources: {memory: 256MiB}
on_failure_chain: alert-task
notify: {on_success: false}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "my-task"
    folder.mkdir(parents=True)
    (folder / "task.py").write_text("result = 1\n")
    return folder


def loader(tmp_path: Path, environ: Mapping[str, str] | None = None) -> TaskLoader:
    return TaskLoader(
        runtimes={"python": ("task.py",)},
        environ=environ or {},
        home=tmp_path / "home",
        data_dir=tmp_path / "home" / ".dicode",
        config_dir=tmp_path,
        withheld=("GIT_TOKEN",),
    )


def load(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Task:
    (folder / "task.yaml").write_text(text)
    root = folder.parent
    return loader(root.parent, environ).load(
        folder, task_id="my-task", source="local", source_root=root
    )


def refused(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load(folder, text, environ)
    assert caught.value.code is Code.INVALID_SPEC
    return caught.value


def test_a_task_in_its_place(folder: Path) -> None:
    task = load(folder, FULL, {"SECRET": "s3cret", "WHICH": "CHOSEN"})
    assert (task.id, task.source, task.script) == ("my-task", "local", folder / "task.py")
    spec = task.spec
    assert spec.version == "1.10"
    assert spec.timeout == 5400
    assert spec.trigger.kind == "webhook"
    assert spec.trigger.webhook == "/hooks/my-task"
    assert spec.trigger.webhook_secret == "s3cret"
    assert spec.on_failure_chain is not None
    assert spec.on_failure_chain.task == "alert-task"
    assert len(task.digest) == 64


def test_every_form_of_an_environment_entry(folder: Path) -> None:
    env = load(folder, FULL, {"SECRET": "s3cret", "WHICH": "CHOSEN"}).spec.permissions.env
    assert env[:4] == (
        EnvEntry(name="HOME", source="host", key="HOME"),
        EnvEntry(name="MODE", source="literal", value="fast"),
        EnvEntry(name="API_KEY", source="host", key="GH_TOKEN"),
        EnvEntry(name="OTHER", source="host", key="CHOSEN"),
    )
    assert env[4] == EnvEntry(name="DB_PASS", source="secret", key="db_password", optional=True)
    assert (env[5].source, env[5].key) == ("task", "providers/vault")
    assert env[5].if_missing is not None
    assert env[5].if_missing.task == "alert"
    assert env[7].value == "1.50"


def test_a_literal_never_gets_a_host_variable(folder: Path) -> None:
    env = load(folder, FULL, {"SECRET": "s3cret"}).spec.permissions.env
    assert env[6].value == f"{folder}/${{SECRET}}"


def test_granted_paths_become_absolute(folder: Path, tmp_path: Path) -> None:
    fs = load(folder, FULL, {"WHICH": "here"}).spec.permissions.fs
    assert [grant.path for grant in fs] == [
        str(folder / "data"),
        str(tmp_path / "home/notes"),
        str(tmp_path / "source/skills"),
        "/srv/here/x",
    ]


def test_the_shown_manifest_is_a_manifest_and_holds_no_host_value(folder: Path) -> None:
    task = load(folder, FULL, {"SECRET": "s3cret", "WHICH": "CHOSEN"})
    text = json.dumps(task.manifest)
    assert "s3cret" not in text
    assert "CHOSEN" not in text
    assert task.manifest is not None
    assert task.manifest["timeout"] == "1h30m0s"
    assert task.manifest["retry"] == {"attempts": 3, "backoff": "5s"}
    assert task.manifest["resources"] == {"memory": "256MiB"}
    assert task.manifest["trigger"]["mode"] == "sync"
    again = load(folder, text)
    assert replace(again, digest="") == replace(load(folder, FULL), digest="")


def test_a_resolved_webhook_secret_is_masked(folder: Path) -> None:
    text = BASE.replace("{manual: true}", "{webhook: /hooks/x, webhook_secret: plain}")
    task = load(folder, text)
    assert task.manifest is not None
    assert task.manifest["trigger"]["webhook_secret"] == "***"


def test_an_unknown_variable_stays_as_it_is(folder: Path) -> None:
    assert load(folder, FULL).spec.trigger.webhook_secret == "${SECRET}"


def test_the_servers_own_variables_are_no_templates(folder: Path) -> None:
    text = BASE + "permissions: {fs: [{path: '/x/${DICODE_MASTER_KEY}${GIT_TOKEN}'}]}\n"
    task = load(folder, text, {"DICODE_MASTER_KEY": "k", "GIT_TOKEN": "t"})
    assert task.spec.permissions.fs[0].path == "/x/${DICODE_MASTER_KEY}${GIT_TOKEN}"


@pytest.mark.parametrize("entry", ["GIT_TOKEN", "{name: A, from: GIT_TOKEN}"])
def test_a_variable_of_the_server_is_not_passed(folder: Path, entry: str) -> None:
    error = refused(folder, BASE + f"permissions:\n  env:\n    - {entry}\n")
    assert "task.yaml:6: permissions.env[0]" in error.message


def test_fields_without_templates_are_taken_literally(folder: Path) -> None:
    text = BASE + "description: ${HOME}\nparams: {p: '${HOME}'}\n"
    spec = load(folder, text).spec
    assert (spec.description, spec.params[0].default) == ("${HOME}", "${HOME}")


@pytest.mark.parametrize(
    ("runtime", "trigger", "timeout"),
    [
        ("python", "{manual: true}", 60),
        ("python", "{daemon: true}", None),
        ("ts", "{manual: true}", 60),
        ("js", "{manual: true}", 60),
    ],
)
def test_the_default_timeout(
    folder: Path, runtime: str, trigger: str, timeout: float | None
) -> None:
    (folder / "task.ts").touch()
    spec = load(folder, f"name: T\nruntime: {runtime}\ntrigger: {trigger}\n").spec
    assert spec.timeout == timeout
    assert spec.runtime in ("python", "deno")


def test_null_is_no_timeout_and_containers_have_none(folder: Path) -> None:
    assert load(folder, BASE + "timeout: null\n").spec.timeout is None
    docker = "name: T\nruntime: docker\ntrigger: {manual: true}\ncontainer: {image: x, user: 007}\n"
    task = load(folder, docker)
    assert task.spec.timeout is None
    assert task.script is None
    assert task.spec.docker is not None
    assert task.spec.docker.user == "007"


@pytest.mark.parametrize(
    "path", ["/", "~", "~/.dicode", "~/.dicode/x", "~/..", "/var/run/docker.sock", "link"]
)
def test_a_grant_that_opens_the_server_is_refused(folder: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "home/.dicode").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "home")
    error = refused(folder, BASE + f"permissions:\n  fs:\n    - path: {path}\n")
    assert error.problems[0].line == 6
    assert error.problems[0].path == "permissions.fs[0].path"


def test_a_mount_of_the_machine_is_refused(folder: Path) -> None:
    text = "name: T\nruntime: docker\ntrigger: {manual: true}\ndocker:\n  image: x\n  volumes:\n"
    error = refused(folder, text + "    - data:/d\n    - /:/host:ro\n")
    assert [p.line for p in error.problems] == [8]


def test_a_checkout_inside_the_data_dir_may_be_read_only(tmp_path: Path) -> None:
    root = tmp_path / "home/.dicode/checkouts/abc"
    folder = root / "t"
    folder.mkdir(parents=True)
    (folder / "task.py").touch()
    text = BASE + "permissions: {fs: [{path: '${SKILLS_DIR}', permission: %s}]}\n"

    def attempt(permission: str) -> Task:
        (folder / "task.yaml").write_text(text % permission)
        return loader(tmp_path).load(folder, task_id="t", source="s", source_root=root)

    assert attempt("r").spec.permissions.fs[0].path == str(root / "skills")
    with pytest.raises(SpecError, match="data dir"):
        attempt("rw")


def test_a_missing_script_names_what_is_looked_for(folder: Path) -> None:
    (folder / "task.py").rename(folder / "tasks.py")
    error = refused(folder, BASE)
    assert "task.yaml:2: runtime: the script is missing: task.py" in error.message
    assert "found 'tasks.py'" in error.message


def test_a_linked_script_or_manifest_is_refused(folder: Path) -> None:
    (folder / "task.py").rename(folder / "real.py")
    (folder / "task.py").symlink_to("real.py")
    assert "symbolic link" in refused(folder, BASE).message
    (folder / "task.yaml").rename(folder / "real.yaml")
    (folder / "task.yaml").symlink_to("real.yaml")
    with pytest.raises(SpecError, match=r"task\.yaml: is a symbolic link"):
        loader(folder.parent.parent).read(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "task.yaml: is empty"),
        (b"name: T\nrun", "task.yaml:3: is not valid YAML"),
        (b"name: T\nruntime: \xff\n", "task.yaml:2: is not UTF-8 text"),
        (b"a: " + b"x" * 300_000, "larger than 256 KiB"),
    ],
)
def test_a_half_written_file_is_a_problem_and_no_crash(
    folder: Path, content: bytes, told: str
) -> None:
    (folder / "task.yaml").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        loader(folder.parent.parent).read(folder)
    assert told in caught.value.message


def test_a_missing_manifest_and_a_misnamed_one(folder: Path) -> None:
    reader = loader(folder.parent.parent)
    with pytest.raises(SpecError, match=r"task\.yaml: is missing"):
        reader.read(folder)
    (folder / "task.yml").touch()
    with pytest.raises(SpecError, match=r"name it task\.yaml"):
        reader.read(folder)


def test_a_pipe_in_place_of_a_manifest_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "task.yaml")
    with pytest.raises(SpecError, match="not a regular file"):
        loader(folder.parent.parent).read(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_manifest_is_a_problem(folder: Path) -> None:
    (folder / "task.yaml").touch(0o000)
    with pytest.raises(SpecError, match="permission denied"):
        loader(folder.parent.parent).read(folder)


def test_a_folder_whose_name_cannot_be_an_id(folder: Path) -> None:
    (folder / "task.yaml").write_text(BASE)
    with pytest.raises(SpecError, match="try 'my-task'"):
        loader(folder.parent.parent).load(
            folder, task_id="my task", source="s", source_root=folder.parent
        )


def test_a_merged_document_is_validated_like_any_other(folder: Path) -> None:
    reader = loader(folder.parent.parent)
    (folder / "task.yaml").write_text(BASE)
    document = reader.read(folder)

    def built(**changes: object) -> Task:
        merged = replace(document, data={**document.data, **changes})
        return reader.build(merged, folder, task_id="set/t", source="s", source_root=folder.parent)

    assert built(timeout="2m").spec.timeout == 120
    assert built(timeout="2m").digest != built(timeout="3m").digest
    with pytest.raises(SpecError, match="timeout: 'soon' must be"):
        built(timeout="soon")


def test_a_runtime_of_a_plugin_is_known_to_its_server_only(folder: Path) -> None:
    (folder / "task.lua").touch()
    text = BASE.replace("python", "lua")
    assert "allowed: python, deno, docker, podman" in refused(folder, text).message
    (folder / "task.yaml").write_text(text)
    reader = TaskLoader(
        runtimes={"lua": ("task.lua",)},
        environ={},
        home=folder,
        data_dir=folder / "data",
        config_dir=folder,
    )
    task = reader.load(folder, task_id="t", source="s", source_root=folder.parent)
    assert task.script == folder / "task.lua"
    assert reader.validate_text(text) == []
