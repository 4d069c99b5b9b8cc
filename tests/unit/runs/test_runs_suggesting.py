"""What is suggested from what runs used, and what is not."""

from __future__ import annotations

from typing import Any

import yaml

from dicode_mcp.runs.accesses import Access, Kind, Seen, SeenRun, mark_of
from dicode_mcp.runs.findings import as_line, as_yaml, instead_line
from dicode_mcp.runs.suggesting import ENOUGH, Suggestion, suggest, wider_than_used
from dicode_mcp.spec.model import Permissions

FOLDER = "/tasks/t"
DECLARED: dict[str, Any] = {
    "env": [{"name": "ONE"}, {"name": "TWO", "secret": "key"}, {"name": "TZ"}],
    "fs": [
        {"path": "/data", "permission": "rw"},
        {"path": "/idle", "permission": "r"},
        {"path": "/out", "permission": "rw"},
    ],
    "net": ["api.example.com", "*.idle.example"],
    "run": ["git", "curl"],
    "dicode": {"tasks": ["a", "b"], "list_tasks": True, "get_runs": True},
}
USED = (
    Access("env", "ONE", True),
    Access("read", "/data", True),
    Access("read", "/out", True),
    Access("write", "/out", True),
    Access("net", "api.example.com:443", True),
    Access("dicode", 'tasks: ["a"]', True),
    Access("dicode", "list_tasks: true", True),
)


def runs(
    permissions: dict[str, Any], count: int, *accesses: Access, ok: bool = True, whole: bool = True
) -> Seen:
    under = mark_of(Permissions.model_validate(permissions))
    seen = Seen()
    for n in range(count):
        seen = seen.plus(SeenRun(f"r{n}", n, ok, whole, frozenset(accesses), under))
    return seen


def suggested(seen: Seen, declared: dict[str, Any], runtime: str = "python") -> Suggestion:
    def forbidden(path: str, how: str) -> str | None:
        return "it is the server's" if path == "/" or path.startswith("/server") else None

    return suggest(
        seen,
        Permissions.model_validate(declared),
        declared,
        runtime=runtime,
        folder=FOLDER,
        home="/home/me",
        forbidden=forbidden,
    )


def refused(kind: Kind, *whats: str) -> list[Access]:
    return [Access(kind, what, False) for what in whats]


def added(*accesses: Access, ok: bool = False, declared: dict[str, Any] | None = None) -> Any:
    declared = declared or {}
    found = suggested(runs(declared, 1, *accesses, ok=ok), declared)
    return found.permissions


# ── Wider than used ──


def test_what_enough_runs_did_without_is_left_out_and_narrowed() -> None:
    found = suggested(runs(DECLARED, ENOUGH, *USED), DECLARED)
    assert found.permissions == {
        "env": [{"name": "ONE"}, {"name": "TZ"}],
        "fs": [{"path": "/data", "permission": "r"}, {"path": "/out", "permission": "rw"}],
        "net": ["api.example.com"],
        "dicode": {"tasks": ["a"], "list_tasks": True},
    }
    assert [(as_line(each), instead_line(each)) for each in found.wider] == [
        ("permissions.env: {name: TWO, secret: key}", None),
        (
            "permissions.fs: {path: /data, permission: rw}",
            "permissions.fs: [{path: /data, permission: r}]",
        ),
        ("permissions.fs: {path: /idle, permission: r}", None),
        ("permissions.net: '*.idle.example'", None),
        ("permissions.run: git", None),
        ("permissions.run: curl", None),
        ("permissions.dicode: {tasks: [b]}", None),
        ("permissions.dicode: {get_runs: true}", None),
    ]


def test_too_few_runs_leave_everything_as_it_is() -> None:
    found = suggested(runs(DECLARED, ENOUGH - 1, *USED), DECLARED)
    assert (found.permissions, found.wider, found.runs) == (DECLARED, (), ENOUGH - 1)


def test_runs_that_failed_or_were_not_seen_whole_show_nothing_to_be_unused() -> None:
    for seen in (runs(DECLARED, 20, ok=False), runs(DECLARED, 20, whole=False)):
        assert suggested(seen, DECLARED).wider == ()


def test_what_was_declared_only_now_is_not_called_unused() -> None:
    before = {**DECLARED, "net": ["api.example.com"]}
    assert suggested(runs(before, 20, *USED), DECLARED).wider == ()


def test_where_programs_run_out_of_sight_files_and_environment_are_not_judged() -> None:
    for access in (Access("run", "git", True), Access("blind", "fork", True)):
        found = suggested(runs(DECLARED, ENOUGH, access), DECLARED)
        assert found.unseen is not None
        assert {"fs", "env"} <= set(found.unseen)
        assert {each.field for each in found.wider} == {"net", "run", "dicode"}
        assert found.permissions["fs"] == DECLARED["fs"]


def test_what_a_runtime_does_not_tell_of_is_not_judged() -> None:
    declared: dict[str, Any] = {"run": ["git"], "sys": ["hostname"]}
    python = suggested(runs(declared, 20), declared, "python")
    deno = suggested(runs(declared, 20), declared, "deno")
    other = suggested(runs(declared, 20), declared, "docker")
    assert [each.field for each in python.wider] == ["run"]
    assert [each.field for each in deno.wider] == ["sys"]
    assert other.wider == ()


def test_a_star_is_narrowed_to_what_was_used() -> None:
    declared: dict[str, Any] = {"net": ["*", "10.0.0.1"], "run": ["*"]}
    used = (
        Access("net", "b.example.com:443", True),
        Access("net", "a.example.com:80", True),
        Access("net", "10.0.0.1:80", True),
        Access("run", "git", True),
    )
    found = suggested(runs(declared, ENOUGH, *used), declared)
    assert found.permissions == {
        "net": ["a.example.com:80", "b.example.com:443", "10.0.0.1"],
        "run": ["git"],
    }
    many = [Access("net", f"h{n}.example.com:443", True) for n in range(30)]
    assert suggested(runs(declared, ENOUGH, *many), declared).permissions["net"] == ["*"]


def test_an_optional_variable_may_stay_unused() -> None:
    declared: dict[str, Any] = {"env": [{"name": "ONE", "optional": True}]}
    assert suggested(runs(declared, 20), declared).wider == ()


def test_the_warning_finds_the_same() -> None:
    seen = runs(DECLARED, ENOUGH, *USED)
    permissions = Permissions.model_validate(DECLARED)
    found = wider_than_used(seen, permissions, DECLARED, runtime="python", folder=FOLDER)
    assert found == suggested(seen, DECLARED).wider


# ── Refused ──


def test_what_a_failed_run_was_refused_is_added() -> None:
    accesses = [
        *refused("net", "api.example.com:443"),
        *refused("run", "git"),
        *refused("env", "TOKEN"),
        *refused("sys", "hostname"),
        *refused("dicode", 'tasks: ["b"]', "list_tasks: true"),
        *refused("read", "/data/in.csv"),
    ]
    declared: dict[str, Any] = {"net": ["old.example.com"], "dicode": {"tasks": ["a"]}}
    assert added(*accesses, declared=declared) == {
        "env": ["TOKEN"],
        "fs": [{"path": "/data/in.csv", "permission": "r"}],
        "net": ["old.example.com", "api.example.com:443"],
        "run": ["git"],
        "sys": ["hostname"],
        "dicode": {"tasks": ["a", "b"], "list_tasks": True},
    }


def test_what_successful_runs_were_refused_is_told_and_not_added() -> None:
    seen = runs({}, 3, *refused("read", "/srv/me/.netrc"))
    found = suggested(seen, {})
    assert found.permissions == {}
    (told,) = found.refused
    assert (told.runs, told.last_run, told.why) == (3, "r2", "the runs succeeded without it")


def test_what_is_declared_by_now_is_not_added_again() -> None:
    declared: dict[str, Any] = {"net": ["api.example.com"]}
    seen = runs({}, 1, *refused("net", "api.example.com:443"), ok=False)
    assert suggested(seen, declared).permissions == declared


def test_files_of_one_folder_become_the_folder() -> None:
    assert added(*refused("read", "/data/in/a", "/data/in/b", "/srv/one/c")) == {
        "fs": [
            {"path": "/data/in", "permission": "r"},
            {"path": "/srv/one/c", "permission": "r"},
        ]
    }
    assert added(*refused("read", "/data/in/a"), *refused("write", "/data/in/b")) == {
        "fs": [{"path": "/data/in", "permission": "rw"}]
    }
    assert added(*refused("read", "/data/in", "/data/in/b")) == {
        "fs": [{"path": "/data/in", "permission": "r"}]
    }


def test_wide_folders_are_never_put_in_place_of_files() -> None:
    for folder in ("", "/opt", "/home/me"):
        paths = sorted((f"{folder}/a", f"{folder}/b"))
        assert added(*refused("read", *paths)) == {
            "fs": [{"path": path, "permission": "r"} for path in paths]
        }


def test_files_of_the_task_are_shown_as_its_manifest_has_them() -> None:
    assert added(*refused("write", f"{FOLDER}/state/a")) == {
        "fs": [{"path": "state/a", "permission": "rw"}]
    }
    both = added(*refused("write", f"{FOLDER}/state/a", f"{FOLDER}/state/b"))
    assert both == {"fs": [{"path": "state", "permission": "rw"}]}


def test_what_load_refuses_is_never_suggested() -> None:
    accesses = [
        *refused("read", "/server/secrets/key", "/server/x", "/"),
        *refused("net", "http://x/y", "a b"),
        *refused("env", "DICODE_TOKEN", "*"),
        *refused("sys", "everything"),
    ]
    found = suggested(runs({}, 1, *accesses, ok=False), {})
    assert found.permissions == {}
    assert len(found.refused) == 8


def test_the_block_is_yaml_that_loads_as_permissions() -> None:
    found = suggested(runs(DECLARED, ENOUGH, *USED), DECLARED)
    text = as_yaml(found.permissions)
    block = yaml.safe_load(text)["permissions"]
    assert block["env"][0] == "ONE"
    assert Permissions.read(block).fs[0].path == "/data"
    assert as_yaml({}) == "permissions: {}\n"
