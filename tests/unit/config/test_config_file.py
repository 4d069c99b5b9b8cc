from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dicode_mcp.config import Config, config_schema, load_config
from dicode_mcp.errors import Code
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.yaml12 import load

FULL = """
data_dir: ${HOME}/state
sources:
  - {type: local, path: ./tasks, name: mine, tags: [a]}
  - {type: local, path: "~/more"}
  - type: git
    url: https://git.example/team/jobs.git
    branch: prod
    path: jobs
    poll_interval: 1m
    auth: {token_env: JOBS_TOKEN, ssh_key: "${CONFIGDIR}/key"}
    push_secret_env: PUSH_SECRET
    trust: review
database: {type: postgres, url_env: DATABASE_URL}
secrets: {providers: [local, env, {type: task, task: vault}]}
server: {port: 9000, name: home, labels: [gpu], auth: true, max_body: 1MiB, allow_local_git: true}
defaults: {timeout: 5m, on_failure_chain: alert, retention: {age: 7d, runs: 10}}
runtimes: {deno: {path: "${DATADIR}/bin/deno"}}
execution: {max_concurrent_runs: 3, sandbox: best_effort, drain: 5s, max_log_bytes: 1MiB}
notifications: {on_success: true}
ai: {base_url: http://localhost:11434/v1, model: m, api_key_env: AI_KEY}
registries: [https://git.example/registry, {url: https://git.example/x, name: x}]
workers: {dispatcher: local}
log_level: debug
spec: {entries: {a: {ref: {path: ./a}}}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def read(cwd: Path, home: Path, text: str | None = None, **environ: str) -> Config:
    if text is not None:
        (cwd / "dicode.yaml").write_text(text)
    return load_config(None, environ=environ, cwd=cwd, home=home)


def test_every_key_is_read_and_paths_become_absolute(cwd: Path, home: Path) -> None:
    config = read(cwd, home, FULL)
    assert config.file == cwd / "dicode.yaml"
    assert config.data_dir == home / "state"
    assert [source.path for source in config.sources] == [
        str(cwd / "tasks"),
        str(home / "more"),
        "jobs",
    ]
    assert [source.label for source in config.sources] == ["mine", "more", "jobs"]
    git = config.sources[2]
    assert git.poll_interval == 60
    assert git.auth is not None
    assert git.auth.ssh_key == str(cwd / "key")
    assert config.runtimes["deno"].path == str(home / "state/bin/deno")
    assert config.execution.drain == 5
    assert config.execution.max_log_bytes == 2**20
    assert config.server.max_body == 2**20
    assert [p.type for p in config.secrets.providers] == ["local", "env", "task"]
    assert config.withheld_variables == {"JOBS_TOKEN", "PUSH_SECRET", "DATABASE_URL"}


def test_defaults_hold_without_any_file(cwd: Path, home: Path) -> None:
    config = read(cwd, home)
    assert config.file is None
    assert config.data_dir == home / ".dicode"
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8080)
    assert config.execution.drain == 20
    assert config.execution.max_log_bytes == 10 * 2**20
    assert config.execution.max_log_lines == 100_000
    assert config.execution.max_concurrent_runs >= 2
    assert config.execution.sandbox == "strict"
    assert config.sources == ()
    assert config.not_in_force() == []


def test_without_a_file_a_folder_of_tasks_is_the_source(cwd: Path, home: Path) -> None:
    (home / "dicode-tasks").mkdir()
    assert read(cwd, home).sources[0].path == str(home / "dicode-tasks")
    (cwd / "tasks").mkdir()
    assert read(cwd, home).sources[0].path == str(cwd / "tasks")


def test_an_empty_file_means_the_defaults_and_no_source(cwd: Path, home: Path) -> None:
    (cwd / "tasks").mkdir()
    assert read(cwd, home, "# nothing yet\n").sources == ()


def test_the_search_order(cwd: Path, home: Path, tmp_path: Path) -> None:
    def found(path: Path | None = None, **environ: str) -> str:
        return str(load_config(path, environ=environ, cwd=cwd, home=home).server.name)

    (home / ".dicode").mkdir()
    for name, file in (
        ("home", home / ".dicode/dicode.yaml"),
        ("cwd", cwd / "dicode.yaml"),
        ("env", tmp_path / "env.yaml"),
        ("flag", tmp_path / "flag.yaml"),
    ):
        file.write_text(f"server: {{name: {name}}}\n")
    env = str(tmp_path / "env.yaml")
    assert found(tmp_path / "flag.yaml", DICODE_CONFIG=env) == "flag"
    assert found(DICODE_CONFIG=env) == "env"
    assert found() == "cwd"
    (cwd / "dicode.yaml").unlink()
    assert found() == "home"


def test_a_named_file_that_is_missing_is_an_error(cwd: Path, home: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_config(Path("none.yaml"), environ={}, cwd=cwd, home=home)
    assert caught.value.code is Code.INVALID_CONFIG
    assert caught.value.message == "none.yaml: is missing"


def test_the_environment_decides_port_and_data_dir(cwd: Path, home: Path) -> None:
    environ = {"DICODE_PORT": "0", "DICODE_DATA_DIR": "/srv/state"}
    config = read(cwd, home, "server: {name: a, port: 9}\n", **environ)
    assert (config.server.port, config.server.name) == (0, "a")
    assert config.data_dir == Path("/srv/state")
    assert read(cwd, home, "data_dir: here\n", **environ).data_dir == cwd / "here"
    with pytest.raises(SpecError, match="DICODE_PORT"):
        read(cwd, home, DICODE_PORT="http")


def test_host_variables_do_not_expand(cwd: Path, home: Path) -> None:
    config = read(cwd, home, "sources: [{type: local, path: '/x/${TOKEN}'}]\n", TOKEN="t")
    assert config.sources[0].path == "/x/${TOKEN}"


@pytest.mark.parametrize(
    ("text", "place", "bits"),
    [
        ("port: 8080\n", "1: port", "unknown key"),
        ("server:\n  prot: 1\n", "2: server.prot", "mean 'port'?"),
        ("server: {port: 99999}\n", "1: server.port", "at most 65535"),
        ("server: {port: '80'}\n", "1: server.port", "a whole number"),
        ("log_level: verbose\n", "1: log_level", "debug, info"),
        ("sources:\n  - {type: local}\n", "2: sources[0].path", "required"),
        ("sources:\n  - {path: x}\n", "2: sources[0].type", "required"),
        ("sources:\n  - {type: git, path: x}\n", "2: sources[0].url", "required"),
        ("sources:\n  - {type: local, path: x, branch: y}\n", "2: sources[0].branch", "git"),
        (
            "sources:\n  - {type: git, url: 'https://g.example/x', tag: a, commit: b}\n",
            "2: sources[0].commit",
            "beside tag",
        ),
        (
            "sources:\n  - {type: local, path: a/x}\n  - {type: local, path: b/x}\n",
            "3: sources[1]",
            "named 'x'",
        ),
        ("sources: [{type: git, url: ./x}]\n", "1: sources[0].url", "type: local"),
        ("execution: {sandbox: none}\n", "1: execution.sandbox", "best_effort"),
        ("execution: {drain: soon}\n", "1: execution.drain", "duration"),
        ("database: {type: postgres}\n", "1: database.url_env", "required"),
        ("secrets: {providers: [vault]}\n", "1: secrets.providers[0].type", "local, env, task"),
        ("ai: {base_url: ftp://x}\n", "1: ai.base_url", "match"),
        ("data_dir: [x]\n", "1: data_dir", "path"),
        ("a: 1\na: 2\n", "2: a", "there twice"),
        ("- a\n", "1", "must be a map"),
    ],
)
def test_a_bad_configuration_names_line_path_and_remedy(
    cwd: Path, home: Path, text: str, place: str, bits: str
) -> None:
    with pytest.raises(SpecError) as caught:
        read(cwd, home, text)
    assert caught.value.code is Code.INVALID_CONFIG
    told = next(
        str(p) for p in caught.value.problems if str(p).startswith(f"dicode.yaml:{place}: ")
    )
    assert bits in told


def test_a_password_in_a_url_is_refused_and_not_shown(cwd: Path, home: Path) -> None:
    with pytest.raises(SpecError, match="token_env") as caught:
        read(cwd, home, "sources: [{type: git, url: 'https://me:hunter2@g.example/x'}]\n")
    assert "hunter2" not in caught.value.message


def test_a_registry_is_a_url_or_a_folder(cwd: Path, home: Path) -> None:
    text = """\
registries:
  - https://git.example/community/registry.git
  - git@git.example:team/mine.git
  - ./shared
  - ~/more/taskset.yaml
  - {path: "${CONFIGDIR}/third", name: other}
  - url: https://git.example/big
    path: sets/registry
    tag: v2
    auth: {token_env: REGISTRY_TOKEN, ssh_key: ~/.ssh/key}
"""
    config = read(cwd, home, text)
    assert [(r.label, r.url, r.path) for r in config.registries] == [
        ("registry", "https://git.example/community/registry.git", None),
        ("mine", "git@git.example:team/mine.git", None),
        ("shared", None, str(cwd / "shared")),
        ("taskset.yaml", None, str(home / "more/taskset.yaml")),
        ("other", None, str(cwd / "third")),
        ("big", "https://git.example/big", "sets/registry"),
    ]
    auth = config.registries[-1].auth
    assert auth
    assert auth.ssh_key == str(home / ".ssh/key")
    assert config.withheld_variables == {"REGISTRY_TOKEN"}


@pytest.mark.parametrize(
    ("registries", "told"),
    [
        ("[ext::sh]", "names a transport helper"),
        ("[registry]", "is not a git URL"),
        ("['https://me:hunter2@git.example/x']", "holds a password"),
        ("[{name: x}]", "needs a url or a path"),
        ("[{path: ./x, branch: main}]", "belongs to a registry with a url"),
        ("[{url: https://git.example/x, branch: a, tag: b}]", "stands beside branch"),
        ("[{url: https://git.example/x, path: ../y}]", "leaves the repository"),
        ("[https://a.example/x, https://b.example/x.git]", "registries named 'x'"),
    ],
)
def test_a_registry_that_cannot_be_meant_is_refused(
    cwd: Path, home: Path, registries: str, told: str
) -> None:
    with pytest.raises(SpecError) as caught:
        read(cwd, home, f"registries: {registries}\n")
    assert "dicode.yaml:1: registries[" in caught.value.message
    assert told in caught.value.message
    assert "hunter2" not in caught.value.message


def test_what_has_no_effect_yet_is_said(cwd: Path, home: Path) -> None:
    told = "\n".join(read(cwd, home, FULL).not_in_force())
    for key in ("database", "ai"):
        assert key in told


def test_the_schema_fits_what_is_read(cwd: Path, home: Path) -> None:
    read(cwd, home, FULL)
    schema: dict[str, Any] = config_schema()
    for text in (FULL, "server:\n", "registries: [x]\n", "bundled: false\n", "bundled:\n"):
        jsonschema.validate(load(text, "t").data, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"prot": 1}, schema)
