"""Every kind of fault in a manifest: where it is told, and in which words."""

from __future__ import annotations

import pytest

from dicode_mcp.spec.loader import validate_text

BASE = "name: T\nruntime: python\ntrigger: {manual: true}\n"
"""Three good lines; what follows them begins on line 4."""

DOCKER = "name: T\nruntime: docker\ntrigger: {manual: true}\n"

Case = tuple[str, int, str, tuple[str, ...]]


def on_base(text: str, line: int, path: str, *bits: str) -> Case:
    return BASE + text, line, path, bits


def on_docker(text: str, line: int, path: str, *bits: str) -> Case:
    return DOCKER + text, line, path, bits


def with_trigger(trigger: str, line: int, path: str, *bits: str) -> Case:
    return f"name: T\nruntime: python\ntrigger:\n{trigger}", line, path, bits


CASES: dict[str, Case] = {
    # the text itself
    "empty": ("", 0, "", ("is empty",)),
    "only a comment": ("# later\n", 0, "", ("is empty",)),
    "a list": ("- name: T\n", 1, "", ("must be a map, found a list",)),
    "plain text": ("hello\n", 1, "", ("must be a map", "'hello'")),
    "tab": ("name: T\n\truntime: python\n", 2, "", ("not valid YAML",)),
    "half written": ('name: "T\nruntime: python\n', 3, "", ("not valid YAML", "quoted scalar")),
    "open bracket": ("name: T\ntags: [a\n", 3, "", ("not valid YAML",)),
    "colon in text": ("name: a: b\n", 1, "", ("not valid YAML", "needs quotes")),
    "alias": on_base("runs_on: *t\n", 4, "runs_on", "aliases are not allowed"),
    "anchor": on_base("description: &d x\n", 4, "description", "anchors are not allowed"),
    "tag": on_base("description: !!python/name:os.system x\n", 4, "description", "tags"),
    "duplicate key": on_base("name: U\n", 4, "name", "there twice", "line 1"),
    "duplicate nested": on_base(
        "notify:\n  on_failure: true\n  on_failure: false\n", 6, "notify.on_failure", "twice"
    ),
    "number as key": on_base("permissions:\n  8080: x\n", 5, "permissions", "'8080'", "quotes"),
    "list as key": on_base("? [a, b]\n: x\n", 4, "", "a key must be text"),
    "second document": on_base("---\nname: U\n", 4, "", "one document"),
    "control character": on_base('description: "a\x07b"\n', 4, "", "U+0007"),
    "too deep": on_base("output_schema: " + "[" * 40 + "]" * 40 + "\n", 4, "", "deeper than 32"),
    "too large": on_base("description: " + "x" * 300_000 + "\n", 0, "", "larger than 256 KiB"),
    "huge number": on_base("mcp_port: " + "9" * 400 + "\n", 4, "mcp_port", "out of range"),
    # top level
    "no name": ("runtime: python\ntrigger: {manual: true}\n", 1, "name", ("required",)),
    "no runtime": ("name: T\ntrigger: {manual: true}\n", 1, "runtime", ("required",)),
    "no trigger": ("name: T\nruntime: python\n", 1, "trigger", ("required",)),
    "null name": ("name:\nruntime: python\ntrigger: {manual: true}\n", 1, "name", ("required",)),
    "number as name": (
        "name: 5\nruntime: python\ntrigger: {manual: true}\n",
        1,
        "name",
        ("must be text, found 5", "quotes"),
    ),
    "unknown key": on_base("timout: 5s\n", 4, "timout", "unknown key", "mean 'timeout'?"),
    "python name of a key": on_base("api_version: dicode/v1\n", 4, "api_version", "unknown key"),
    "other api": on_base("apiVersion: dicode/v2\n", 4, "apiVersion", "'dicode/v2'", "dicode/v1"),
    "other kind": on_base("kind: TaskSet\n", 4, "kind", "'TaskSet'", "allowed: Task"),
    "unknown runtime": (
        "name: T\nruntime: pyton\ntrigger: {manual: true}\n",
        2,
        "runtime",
        ("'pyton'", "python, deno, docker, podman", "mean 'python'?"),
    ),
    "tags as text": on_base("tags: a\n", 4, "tags", "must be a list, found 'a'"),
    "number in tags": on_base("tags:\n  - a\n  - 5\n", 6, "tags[1]", "must be text, found 5"),
    # trigger
    "two triggers": with_trigger(
        "  cron: '@daily'\n  webhook: /hooks/x\n", 3, "trigger", "found cron, webhook"
    ),
    "empty trigger": with_trigger("  auth: true\n", 3, "trigger", "found none", "daemon"),
    "manual false": with_trigger("  manual: false\n", 3, "trigger", "found none"),
    "unknown trigger": with_trigger(
        "  manual: true\n  webhok: /hooks/x\n", 5, "trigger.webhok", "mean 'webhook'?"
    ),
    "cron with four fields": with_trigger(
        '  cron: "0 9 * *"\n', 4, "trigger.cron", "'0 9 * *' has 4 fields", "five fields"
    ),
    "cron with seconds": with_trigger('  cron: "0 0 9 * * *"\n', 4, "trigger.cron", "6 fields"),
    "cron out of range": with_trigger('  cron: "61 9 * * *"\n', 4, "trigger.cron", "range"),
    "cron with a foreign sign": with_trigger('  cron: "0 9 L * ?"\n', 4, "trigger.cron", "sign"),
    "cron that never fires": with_trigger('  cron: "0 0 31 2 *"\n', 4, "trigger.cron", "no month"),
    "reboot": with_trigger('  cron: "@reboot"\n', 4, "trigger.cron", "@hourly"),
    "timezone": with_trigger(
        '  cron: "@daily"\n  timezone: Europe/Berln\n', 5, "trigger.timezone", "Europe/Berlin"
    ),
    "timezone outside": with_trigger(
        '  cron: "@daily"\n  timezone: ../../etc/passwd\n', 5, "trigger.timezone", "IANA"
    ),
    "option of another trigger": with_trigger(
        "  webhook: /hooks/x\n  timezone: UTC\n", 5, "trigger.timezone", "cron", "webhook"
    ),
    "catchup": with_trigger(
        '  cron: "@daily"\n  catchup: every\n', 5, "trigger.catchup", "skip, one, all"
    ),
    "jitter": with_trigger('  cron: "@daily"\n  jitter: -5s\n', 5, "trigger.jitter", "negative"),
    "hook elsewhere": with_trigger("  webhook: /x\n", 4, "trigger.webhook", "/hooks/"),
    "hook without a name": with_trigger("  webhook: /hooks/\n", 4, "trigger.webhook", "name"),
    "hook that climbs": with_trigger("  webhook: /hooks/../x\n", 4, "trigger.webhook", "'..'"),
    "hook of git": with_trigger("  webhook: /hooks/git/x\n", 4, "trigger.webhook", "taken"),
    "hook secret empty": with_trigger(
        "  webhook: /hooks/x\n  webhook_secret: ''\n", 5, "trigger.webhook_secret", "empty"
    ),
    "hook secret unknown form": with_trigger(
        "  webhook: /hooks/x\n  webhook_secret: {secret: a, key: x}\n",
        5,
        "trigger.webhook_secret.key",
        "unknown key",
        "secret",
    ),
    "methods": with_trigger(
        "  webhook: /hooks/x\n  methods: [post]\n", 5, "trigger.methods[0]", "mean 'POST'?"
    ),
    "auth as text": with_trigger(
        "  webhook: /hooks/x\n  auth: yes\n", 5, "trigger.auth", "true or false"
    ),
    "restart": with_trigger(
        "  daemon: true\n  restart: on_failure\n", 5, "trigger.restart", "mean 'on-failure'?"
    ),
    "chain without from": with_trigger(
        "  chain: {on: success}\n", 4, "trigger.chain.from", "required"
    ),
    "chain from a bad id": with_trigger(
        "  chain: {from: 'a b'}\n", 4, "trigger.chain.from[0]", "try 'a-b'"
    ),
    "chain on": with_trigger(
        "  chain: {from: a, on: sucess}\n", 4, "trigger.chain.on", "mean 'success'?"
    ),
    # parameters
    "param type": on_base("params:\n  n: {type: int}\n", 5, "params.n.type", "'int'", "number"),
    "param default": on_base(
        "params:\n  n:\n    type: number\n    default: ten\n", 7, "params.n.default", "a number"
    ),
    "param key": on_base("params:\n  n: {defalt: 1}\n", 5, "params.n.defalt", "mean 'default'?"),
    "param name": on_base("params:\n  1st: x\n", 5, "params.1st", "not a parameter name"),
    "param default not in enum": on_base(
        "params:\n  n: {enum: [a, b], default: c}\n", 5, "params.n.default", "enum"
    ),
    "param enum of another type": on_base(
        "params:\n  n: {type: number, enum: [1, two]}\n", 5, "params.n.enum[1]", "a number"
    ),
    "param cron": on_base(
        "params:\n  at: {type: cron, default: daily}\n", 5, "params.at.default", "cron"
    ),
    "params as a number": on_base("params: 5\n", 4, "params", "name: default"),
    "param without a name": on_base("params:\n  - repo\n", 5, "params[0]", "- name: repo"),
    "params twice in a list": on_base(
        "params:\n  - name: a\n  - name: a\n", 6, "params[1]", "declared twice"
    ),
    # permissions
    "env of the server": on_base(
        "permissions:\n  env: [DICODE_MASTER_KEY]\n", 5, "permissions.env[0]", "DICODE_*"
    ),
    "env name": on_base("permissions:\n  env: [MY-VAR]\n", 5, "permissions.env[0]", "name"),
    "env without a name": on_base(
        "permissions:\n  env:\n    - value: x\n", 6, "permissions.env[0].name", "required"
    ),
    "env with two origins": on_base(
        "permissions:\n  env:\n    - name: A\n      secret: a\n      value: b\n",
        6,
        "permissions.env[0]",
        "value and secret",
    ),
    "env twice": on_base("permissions:\n  env:\n    - A\n    - A=x\n", 7, "permissions.env[1]"),
    "env key": on_base(
        "permissions:\n  env:\n    - name: A\n      form: B\n",
        7,
        "permissions.env[0].form",
        "mean 'from'?",
    ),
    "env internal form": on_base(
        "permissions:\n  env:\n    - {name: A, source: literal}\n",
        6,
        "permissions.env[0].source",
        "unknown key",
    ),
    "fs permission": on_base(
        "permissions:\n  fs:\n    - path: /tmp\n      permission: x\n",
        7,
        "permissions.fs[0].permission",
        "allowed: r, w, rw",
    ),
    "fs without a path": on_base(
        "permissions:\n  fs:\n    - permission: r\n", 6, "permissions.fs[0].path", "required"
    ),
    "net url": on_base(
        "permissions:\n  net: ['https://x.example']\n", 5, "permissions.net[0]", "host alone"
    ),
    "net port": on_base("permissions:\n  net: ['x:99999']\n", 5, "permissions.net[0]", "port"),
    "net wildcard": on_base("permissions:\n  net: ['*.x']\n", 5, "permissions.net[0]", "wildcard"),
    "net wildcard inside": on_base(
        "permissions:\n  net: ['a.*.example.com']\n",
        5,
        "permissions.net[0]",
        "in front of a domain",
    ),
    "net wildcard of addresses": on_base(
        "permissions:\n  net: ['*.0.0.1']\n", 5, "permissions.net[0]", "wildcard in an address"
    ),
    "net with a strange address": on_base(
        "permissions:\n  net: ['0x7f.1']\n", 5, "permissions.net[0]", "is not a host"
    ),
    "net with a broken address": on_base(
        "permissions:\n  net: ['[::1]443']\n", 5, "permissions.net[0]", "is not a host"
    ),
    "sys": on_base("permissions:\n  sys: [hostnam]\n", 5, "permissions.sys[0]", "'hostname'?"),
    "grant": on_base(
        "permissions:\n  dicode: {list_task: true}\n",
        5,
        "permissions.dicode.list_task",
        "mean 'list_tasks'?",
    ),
    # containers
    "docker without its section": (DOCKER, 1, "docker", ("required for runtime docker",)),
    "container section for python": on_base("docker: {image: x}\n", 4, "docker", "no effect"),
    "image and build": on_docker("docker: {image: x, build: {}}\n", 4, "docker", "both"),
    "neither image nor build": on_docker("docker: {user: '1'}\n", 4, "docker", "image or a build"),
    "docker and container": on_docker(
        "docker: {image: x}\ncontainer: {image: x}\n", 5, "container", "another name"
    ),
    "volume": on_docker(
        "docker:\n  image: x\n  volumes: [data]\n", 6, "docker.volumes[0]", "host:container"
    ),
    "port mapping": on_docker(
        "container:\n  image: x\n  ports: ['80']\n", 6, "container.ports[0]", "8080:80"
    ),
    "memory": on_docker("docker: {image: x, memory: 512m}\n", 4, "docker.memory", "512MiB"),
    "build outside": on_docker(
        "docker: {build: {context: ../x}}\n", 4, "docker.build.context", "inside the task folder"
    ),
    # the rest
    "timeout": on_base("timeout: 5 minutes\n", 4, "timeout", "1h30m"),
    "timeout of nothing": on_base("timeout: 0\n", 4, "timeout", "more than zero"),
    "timeout true": on_base("timeout: true\n", 4, "timeout", "must be a duration"),
    "retry": on_base("retry: {attempts: 0}\n", 4, "retry.attempts", "at least 1, found 0"),
    "longest delay": on_base(
        "retry:\n  backoff: 1m\n  max_backoff: 30s\n", 6, "retry.max_backoff", "shorter"
    ),
    "retry on": on_base("retry: {on: [fail]}\n", 4, "retry.on[0]", "mean 'failure'?"),
    "retry of a reason": on_base("retry: {on: [exit_cod]}\n", 4, "retry.on[0]", "'exit_code'?"),
    "retry of what never helps": on_base(
        "retry: {on: [secret_missing]}\n", 4, "retry.on[0]", "is never tried again"
    ),
    "negative retry": on_base("retry: {attempts: -1}\n", 4, "retry.attempts", "at least 1"),
    "negative backoff": on_base("retry: {backoff: -1s}\n", 4, "retry.backoff", "negative"),
    "retry without time": on_base("retry: {deadline: 0s}\n", 4, "retry.deadline", "zero"),
    "concurrency key": on_base(
        "params: {repo: x}\nconcurrency: {key: '${params.rep}'}\n", 5, "concurrency.key", "repo"
    ),
    "overlap": on_base("concurrency: {overlap: drop}\n", 4, "concurrency.overlap", "replace"),
    "no run at once": on_base("concurrency: {limit: 0}\n", 4, "concurrency.limit", "at least 1"),
    "negative limit": on_base("concurrency: {limit: -2}\n", 4, "concurrency.limit", "at least 1"),
    "half a run": on_base("concurrency: {limit: 1.5}\n", 4, "concurrency.limit", "whole number"),
    "key of the input": on_base(
        "concurrency: {key: '${input.repo}'}\n", 4, "concurrency.key", "${params.NAME}"
    ),
    "priority": on_base("priority: 101\n", 4, "priority", "100"),
    "priority in words": on_base("priority: high\n", 4, "priority", "whole number"),
    "no budget": on_base("budget: {runs: 0}\n", 4, "budget.runs", "at least 1"),
    "negative budget": on_base("budget: {tokens: -1}\n", 4, "budget.tokens", "at least 1"),
    "no seconds": on_base("budget: {cpu_seconds: 0}\n", 4, "budget.cpu_seconds", "0"),
    "budget of what": on_base("budget: {token: 5}\n", 4, "budget.token", "tokens"),
    "pids": on_base("resources: {pids: 1.5}\n", 4, "resources.pids", "whole number"),
    "mcp_port without daemon": on_base("mcp_port: 3000\n", 4, "mcp_port", "daemon"),
    "tool name": on_base("mcp: {tool_name: My-Tool}\n", 4, "mcp.tool_name", "a-z"),
    "reserved chain parameter": on_base(
        "on_failure_chain: {task: a, params: {runID: x}}\n",
        4,
        "on_failure_chain.params.runID",
        "reserved",
    ),
    "chain id": on_base("on_failure_chain: a//b\n", 4, "on_failure_chain.task", "task id"),
    "notify": on_base("notify: {on_error: true}\n", 4, "notify.on_error", "on_failure"),
    "output schema": on_base("output_schema: {type: strng}\n", 4, "output_schema", "type"),
    "output schema elsewhere": on_base(
        "output_schema: {$ref: 'https://x.example/s'}\n", 4, "output_schema", "'#'"
    ),
    "runs_on": on_base("runs_on: ['a b']\n", 4, "runs_on[0]", "try 'a-b'"),
    "budget": on_base("budget: {runs: many}\n", 4, "budget.runs", "whole number"),
    "cache": on_base("provider: {cache_ttl: long}\n", 4, "provider.cache_ttl", "duration"),
    "retention": on_base("run_inputs: {retention: 5x}\n", 4, "run_inputs.retention", "duration"),
    "history age": on_base("retention: {age: -5d}\n", 4, "retention.age", "negative"),
    "history runs": on_base("retention: {runs: 0}\n", 4, "retention.runs", "1"),
    "api type": on_base("api: {type: 'my task'}\n", 4, "api.type", "try 'my-task'"),
    "api trigger": on_base("api: {trigger: always}\n", 4, "api.trigger", "true or false"),
    "auto fix": on_base("auto_fix: {max_iterations: 99}\n", 4, "auto_fix.max_iterations", "20"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_bad_manifest_names_line_path_fault_and_remedy(case: Case) -> None:
    text, line, path, bits = case
    problems = validate_text(text)
    found = [p for p in problems if (p.line, p.path) == (line, path)]
    assert found, [str(p) for p in problems]
    told = " ".join(str(p) for p in found)
    for bit in bits:
        assert bit in told
    assert len(problems) == 1, [str(p) for p in problems]


SECRETS: dict[str, str] = {
    "env value of a wrong type": "permissions: {env: [{name: A, value: [hunter2]}]}",
    "env line": "permissions: {env: ['MY-KEY=hunter2']}",
    "env value as a name": "permissions: {env: ['hunter2-hunter2']}",
    "env literal beside a fault": "permissions: {env: [{name: A, value: hunter2, extra: hunter2}]}",
    "webhook secret": "trigger: {webhook: /hooks/x, webhook_secret: {secret: hunter2, x: hunter2}}",
    "webhook secret as a number": "trigger: {webhook: /hooks/x, webhook_secret: 48151623}",
    "container variable": "docker: {image: x, env_vars: {'A-B': hunter2}}",
    "param default": "params: {n: {type: number, default: hunter2}}",
    "unknown key": "api_token: hunter2",
    "token of a wrong type": "auto_fix: {max_tokens: hunter2}",
    "yaml fault beside a value": "permissions: {env: [{name: A, value: 'hunter2}]}",
    "unterminated": 'trigger: {webhook_secret: "hunter2',
}


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS.keys())
def test_a_value_that_may_be_secret_is_never_shown(text: str) -> None:
    problems = validate_text(f"name: T\nruntime: python\n{text}\n")
    told = "\n".join(str(p) for p in problems)
    assert problems
    assert "hunter2" not in told
    assert "48151623" not in told


def test_all_faults_of_a_file_are_told_together_in_file_order() -> None:
    problems = validate_text(
        "name: 1\nruntime: pythn\nruntime: deno\ntrigger: {cron: x, webhook: /y}\n"
        "timeout: soon\nbogus: 1\n"
    )
    assert [(p.line, p.path) for p in problems] == [
        (1, "name"),
        (2, "runtime"),
        (3, "runtime"),
        (4, "trigger"),
        (4, "trigger.cron"),
        (4, "trigger.webhook"),
        (5, "timeout"),
        (6, "bogus"),
    ]


def test_a_problem_is_one_line_with_file_and_line() -> None:
    (problem,) = validate_text(BASE + "timout: 5s\n")
    assert str(problem).startswith("task.yaml:4: timout: unknown key; allowed: apiVersion, ")
    assert "\n" not in str(problem)
