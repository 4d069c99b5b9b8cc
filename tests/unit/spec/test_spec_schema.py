"""The schema editors use says yes where the loader says yes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import yaml

import dicode_agents
from dicode_mcp.config import config_schema
from dicode_mcp.spec.loader import validate_text
from dicode_mcp.spec.schema import task_schema
from dicode_mcp.spec.yaml12 import load

EXAMPLES = sorted(Path(dicode_agents.__file__).parent.glob("**/task.yaml"))

BASE = "name: T\nruntime: python\ntrigger: {manual: true}\n"

# the whole of the reference's example, one trigger at a time
REFERENCE = """
apiVersion: dicode/v1
kind: Task
name: My Task
description: A short description of what this task does.
runtime: docker
version: 1.0.0
trigger:
  %s
params:
  repo:
    description: GitHub repo in owner/name format
    type: string
    default: "denoland/deno"
    required: true
permissions:
  env:
    - HOME
    - name: API_KEY
      from: GH_TOKEN
    - name: DB_PASS
      secret: db_password
    - name: LOG_LEVEL
      value: info
  fs:
    - path: /tmp
      permission: rw
  run:
    - git
  net:
    - api.github.com
  sys:
    - hostname
  dicode:
    tasks: ["*"]
    mcp: ["my-mcp-daemon"]
    list_tasks: true
    get_runs: true
    secrets_write: true
docker:
  build:
    dockerfile: Dockerfile
    context: .
  command: ["echo", "hello"]
  entrypoint: ["/bin/sh"]
  volumes:
    - /tmp:/data:ro
  ports:
    - 8080:80
  working_dir: /app
  env_vars:
    MY_VAR: value
    PORT: 8080
  pull_policy: missing
timeout: 30s
on_failure_chain: alert-task
notify:
  on_success: false
  on_failure: true
"""

GOOD: dict[str, str] = {
    "reference cron": REFERENCE % 'cron: "0 9 * * *"',
    "reference webhook": REFERENCE
    % 'webhook: /hooks/my-task\n  webhook_secret: "${SECRET}"\n  auth: true',
    "reference daemon": (REFERENCE % "daemon: true\n  restart: always") + "mcp_port: 3000\n",
    "reference chain": REFERENCE % "chain:\n    from: other-task\n    on: success",
    "params as scalars": BASE + "params: {a: x, b: 1.50, c: true, d: null}\n",
    "params as a list": BASE
    + "params:\n  - name: a\n    type: number\n  - b: x\n  - c: {enum: [x]}\n",
    "env forms": BASE
    + "permissions:\n  env: [A, B=c, 'D=', {name: E, value: 5, optional: false}]\n",
    "number of seconds": BASE + "timeout: 90\nretry: {attempts: 2, backoff: 1.5}\n",
    "null timeout": BASE + "timeout: null\n",
    "empty sections": BASE + "description:\nparams:\npermissions:\ndocker:\ntags:\nnotify:\n",
    "number as version": BASE + "version: 1.10\n",
    "alias of the runtime": BASE.replace("python", "ts"),
    "stored webhook secret": BASE.replace(
        "{manual: true}", "{webhook: /hooks/a, webhook_secret: {secret: k}, methods: [GET, POST]}"
    ),
    "chain of several": BASE.replace(
        "{manual: true}", "{chain: {from: [a, b/c], join: all, on: always}}"
    ),
    "a trigger beside false ones": BASE.replace("{manual: true}", "{manual: true, daemon: false}"),
    "cron options": BASE.replace(
        "{manual: true}",
        "{cron: '*/5 8-18 * jan-mar MON,fri', timezone: UTC, catchup: all, jitter: 5s}",
    ),
    "failure chain": BASE + "on_failure_chain: {task: a, params: {level: 1}}\n",
    "no failure chain": BASE + 'on_failure_chain: ""\n',
    "the rest": BASE + "concurrency: {limit: 2, key: x, overlap: skip}\n"
    "resources: {memory: 1GB, cpu: 0.5, pids: 9}\n"
    "runs_on: [gpu]\nmcp: {expose: true, tool_name: a_1, read_only: true, destructive: false}\n"
    "output_schema: {type: object, properties: {a: {type: string}}}\nprovider: {cache_ttl: 5m}\n"
    "budget: {runs: 5, cpu_seconds: 1.5, tokens: 9}\nrun_inputs: {enabled: true, retention: 7d}\n"
    "retention: {age: 90d, runs: 50}\napi: {trigger: true, type: my-task}\n"
    "auto_fix: {enabled: true, cooldown: 1h}\n",
}


def violations(schema: dict[str, Any], text: str) -> list[str]:
    validator: Any = jsonschema.Draft202012Validator(schema)
    found = validator.iter_errors(load(text, "t").data)
    return [f"{error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_what_the_loader_accepts_fits_the_schema(text: str) -> None:
    assert [str(p) for p in validate_text(text)] == []
    assert violations(task_schema(), text) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: cast(Path, path).parent.name)
def test_every_bundled_task_is_valid(path: Path) -> None:
    text = path.read_text()
    assert [str(p) for p in validate_text(text)] == []
    assert violations(task_schema(), text) == []


@pytest.mark.parametrize(
    "text",
    [
        "name: T\nruntime: python\n",
        BASE + "timout: 5s\n",
        BASE + "timeout: soon\n",
        BASE.replace("{manual: true}", "{manual: true, cron: '@daily'}"),
        BASE.replace("{manual: true}", "{auth: true}"),
        BASE.replace("{manual: true}", "{manual: true, timezone: UTC}"),
        BASE + "permissions: {env: [DICODE_X]}\n",
        BASE + "permissions: {env: [{name: A, value: b, secret: c}]}\n",
        BASE + "permissions: {fs: [{path: x, permission: all}]}\n",
        BASE + "params: {a: {typ: number}}\n",
        BASE.replace("python", "docker"),
    ],
)
def test_an_editor_sees_common_faults(text: str) -> None:
    assert violations(task_schema(), text)
    assert validate_text(text)


@pytest.mark.parametrize("make", [task_schema, config_schema])
def test_every_key_of_a_schema_has_a_description(make: Any) -> None:
    schema = make()
    jsonschema.Draft202012Validator.check_schema(schema)
    bare: list[str] = []
    for name, definition in [("", schema), *schema["$defs"].items()]:
        for key, field in definition.get("properties", {}).items():
            if not field.get("description"):
                bare.append(f"{name}.{key}")
    assert bare == []


def test_the_patterns_of_durations_do_not_backtrack() -> None:
    pattern = task_schema()["properties"]["timeout"]["anyOf"][0]["pattern"]
    assert re.search(pattern, "1h30m")
    assert not re.search(pattern, "1" * 10_000 + "x")


def test_the_loader_reads_what_plain_yaml_reads_where_both_agree() -> None:
    text = GOOD["reference chain"].replace("on: success", "join: any").replace("8080:80", "x")
    assert load(text, "t").data == yaml.safe_load(text)
