"""Checking a registry's files, with and without what they lead to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from textwrap import dedent, indent
from typing import Any

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.protocols import GitRef
from dicode_mcp.registry_lint import fetching, lint_registry
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.sources.git.mirrors import Mirror
from dicode_mcp.sources.git.target import Target
from dicode_mcp.testing.gitserver import serving

TASK = "name: X\nruntime: python\ntrigger: {manual: true}\ndescription: Does x.\ntags: [x]\n"
GOOD = """\
    good:
      ref: {url: https://github.com/someone/good, branch: main}
      overrides: {description: Does good., tags: [good]}
"""


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.name == "task.yaml":
            (path.parent / "task.py").write_text("result = 1\n")


def entries(text: str) -> str:
    return "kind: TaskSet\nspec:\n  entries:\n" + indent(dedent(text), "    ")


def lint(root: Path, start: str = "", **options: Any) -> dict[str, Any]:
    return lint_registry(str(root / start), cwd=str(root), environ={}, **options)


def lines(problems: list[dict[str, Any]]) -> list[str]:
    return [f"{p['file']}:{p.get('line', 0)}: {p['message']}" for p in problems]


def test_a_good_registry_has_no_problem(tmp_path: Path) -> None:
    own = "own: {ref: {path: ./tasks/own}}\nssh:\n  ref: {url: 'git@github.com:a/b.git', tag: v1}\n"
    own += "  overrides: {description: d, tags: [t]}\n"
    write(tmp_path, {"taskset.yaml": entries(GOOD) + indent(own, "    ")})
    write(tmp_path, {"tasks/own/task.yaml": TASK})
    assert lint(tmp_path) == {"entries": 3, "errors": [], "warnings": []}
    assert lint(tmp_path, "taskset.yaml")["entries"] == 3


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://github.com/a/b", "http:// is not fetched"),
        ("git://github.com/a/b", "git:// is not fetched"),
        ("file:///srv/b", "file:// is not fetched"),
        ("https://ghp_abc@github.com/a/b", "names a user, which may be a token"),
        ("https://github.com/a/b?x=1", "has a '?' or '#'"),
        ("https://127.0.0.1/a/b", "leads to no public host"),
        ("https://[::1]:8080/a/b", "leads to no public host"),
        ("https://10.0.0.7/a/b", "leads to no public host"),
        ("https://git.corp/a/b", "leads to no public host"),
        ("git@forge:a/b.git", "leads to no public host"),
    ],
)
def test_a_url_that_strangers_cannot_use_is_an_error_on_its_line(
    tmp_path: Path, url: str, told: str
) -> None:
    text = GOOD.replace("{url: https://github.com/someone/good,", f'{{url: "{url}",')
    write(tmp_path, {"taskset.yaml": entries(text)})
    (error,) = lint(tmp_path)["errors"]
    assert (error["file"], error["line"]) == ("taskset.yaml", 5)
    assert told in error["message"]
    assert error["path"] == "spec.entries.good.ref.url"
    assert error["hint"]
    assert "ghp_abc" not in str(error)


@pytest.mark.parametrize("url", ["https://me:hunter2@github.com/a/b", "ext::sh -c true"])
def test_a_url_that_is_none_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    write(tmp_path, {"taskset.yaml": entries(f"x: {{ref: {{url: '{url}'}}}}\n")})
    report = lint(tmp_path)
    assert lines(report["errors"])[0].startswith("taskset.yaml:4: ")
    assert "hunter2" not in str(report)


def test_a_registry_of_a_company_may_lead_to_its_own_network(tmp_path: Path) -> None:
    write(tmp_path, {"taskset.yaml": entries(GOOD.replace("github.com", "git.corp"))})
    assert lint(tmp_path)["errors"]
    assert lint(tmp_path, private=True)["errors"] == []


def test_every_fault_is_told_in_its_file_and_line(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "taskset.yaml": entries(
                """\
                twice: {ref: {path: ./a}}
                twice: {ref: {path: ./a}}
                bad id: {ref: {path: ./a}}
                gone: {ref: {path: ./gone}}
                out: {ref: {path: ../../etc}}
                a: {ref: {path: ./a}}
                wrong: {ref: {path: ./wrong}}
                nothing: {}
                two: {ref: {url: https://github.com/a/b, branch: main, tag: v1}}
                branch:
                  ref: {url: https://github.com/a/c, branch: refs/heads/main}
                  overrides: {description: d, tags: [t]}
                auth:
                  ref:
                    url: https://github.com/a/d
                    branch: main
                    auth: {token_env: TOKEN}
                  overrides: {tags: [t]}
                """
            ),
            "a/task.yaml": TASK,
            "wrong/task.yaml": TASK + "timeout: soon\ncolour: red\n",
        },
    )
    told = "\n".join(lines(lint(tmp_path)["errors"]))
    for start in (
        "taskset.yaml:5: ",
        "taskset.yaml:6: ",
        "taskset.yaml:7: leads to gone, which cannot be used",
        "taskset.yaml:8: the ref leaves its checkout",
        "taskset.yaml:11: needs a ref or an inline task",
        "taskset.yaml:12: stands beside branch",
        "taskset.yaml:14: must be the short name of a branch",
        "taskset.yaml:16: has no description",
        "taskset.yaml:20: names credentials",
        "wrong/task.yaml:6: 'soon' must be a duration",
        "wrong/task.yaml:7: unknown key",
    ):
        assert start in told, start


def test_what_is_only_unwise_is_a_warning(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "taskset.yaml": entries(
                """\
                a:
                  ref: {url: https://github.com/a/b}
                  overrides: {description: d, timeout: 5s}
                b:
                  ref: {url: "git@github.com:a/b.git", branch: main}
                  overrides: {description: d, tags: [t]}
                c:
                  ref:
                    url: https://github.com/a/c
                    commit: a123456789012345678901234567890123456789
                    dev_ref: {path: ./c}
                  overrides: {description: d, tags: [t]}
                  hosts: [laptop]
                  enabled: false
                d:
                  inline:
                    name: D
                    runtime: python
                    trigger: {manual: true}
                    description: d
                    tags: [t]
                    script: "result = 1"
                """
            )
        },
    )
    report = lint(tmp_path)
    assert report["errors"] == []
    assert lines(report["warnings"]) == [
        "taskset.yaml:4: has no tags",
        "taskset.yaml:5: names no branch; main is taken",
        "taskset.yaml:6: has timeout, which installing does not take over",
        "taskset.yaml:8: leads to the same task as 'a'",
        "taskset.yaml:10: is switched off, so nobody finds it",
        "taskset.yaml:13: is one commit, so whoever installs it is never offered an update",
        "taskset.yaml:14: has no effect for those who install it",
        "taskset.yaml:16: has no effect in a registry",
        "taskset.yaml:19: is found by search, and cannot be installed: no ref can name it",
    ]


@pytest.mark.parametrize("text", ["kind: TaskSet\nspec: [\n", "kind: TaskSet\n", ""])
def test_a_registry_that_offers_nothing_is_an_error(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"taskset.yaml": text})
    assert lint(tmp_path)["errors"]


def test_a_registry_inside_a_repository_may_name_what_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    write(
        tmp_path,
        {
            "registry/taskset.yaml": entries("a: {ref: {path: ../tasks/a}}\n"),
            "tasks/a/task.yaml": TASK.replace("description: Does x.\n", ""),
        },
    )
    report = lint(tmp_path, "registry")
    assert report["entries"] == 1
    assert lines(report["errors"]) == ["registry/taskset.yaml:4: has no description"]
    nearer = lint_registry(str(tmp_path / "registry"), cwd=str(tmp_path / "registry"), environ={})
    assert lines(nearer["errors"]) == ["taskset.yaml:4: has no description"]


def test_what_the_entries_lead_to_is_fetched_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("good", "bad", "empty", "gone", "branch", "deep")
    text = "".join(
        f"{name}:\n  ref: {{url: https://github.com/a/{name}, branch: main{more}}}\n"
        "  overrides: {description: d, tags: [t]}\n"
        for name, more in zip(names, ("", "", "", "", "", ", path: sets/x"), strict=True)
    )
    root = tmp_path / "registry"
    write(root, {"taskset.yaml": entries(text.replace("branch: main}", "branch: main}", 1))})
    with serving(tmp_path / "served") as git:
        git.repository("good").commit({"task.yaml": TASK, "task.py": "result = 1\n"})
        git.repository("bad").commit({"task.yaml": TASK + "colour: red\n", "task.py": "x = 1\n"})
        git.repository("empty").commit({"README": "nothing here\n"})
        git.repository("branch").commit({"task.yaml": TASK}, branch="trunk")
        git.repository("deep").commit({"sets/x/taskset.yaml": "kind: TaskSet\nspec: [\n"})

        class Mapped(GitCheckouts):
            def _target(self, ref: GitRef) -> tuple[Mirror, Target]:
                url = ref.url.replace("https://github.com/a", git.url)
                return super()._target(GitRef(url, ref.branch, ref.tag, ref.commit, trusted=True))

        def opened(data_dir: Path, environ: Mapping[str, str]) -> GitCheckouts:
            return Mapped(
                data_dir, environ=environ, clock=SystemClock(), random=Random(), allow_local=True
            )

        monkeypatch.setattr(fetching, "open_checkouts", opened)
        report = lint(root, fetch=True)
    told = lines(report["errors"])
    assert [line.partition(": ")[0] for line in told] == [
        "github.com/a/bad:task.yaml:6",
        "github.com/a/deep:sets/x/taskset.yaml:3",
        "taskset.yaml:11",
        "taskset.yaml:14",
        "taskset.yaml:17",
    ]
    assert "holds neither a task nor a set" in told[2]
    assert "cannot be fetched" in told[3]
    assert "main" in told[4]
