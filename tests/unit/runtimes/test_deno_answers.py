"""Reading what deno says: graphs, failed fetches, type errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dicode_runtimes.deno.answers import being_prepared, dependencies_failed, type_errors
from dicode_runtimes.deno.flags import Imports
from dicode_runtimes.deno.graph import External, Graph, read_graph, unused_main


def span(line: int) -> dict[str, Any]:
    return {"start": {"line": line, "character": 0}, "end": {"line": line, "character": 9}}


def graph(folder: Path, *modules: dict[str, Any], readable: list[Path] | None = None) -> Graph:
    text = json.dumps({"version": 1, "modules": modules})
    return read_graph(text, folder, readable or [folder])


def module(path: Path, *dependencies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"specifier": path.as_uri(), "dependencies": list(dependencies), **more}


def imports(specifier: str, resolved: str, line: int = 0, **more: Any) -> dict[str, Any]:
    return {"specifier": specifier, "code": {"specifier": resolved, "span": span(line)}, **more}


def test_a_syntax_error_is_told_with_its_place_and_without_the_source(tmp_path: Path) -> None:
    script = tmp_path / "task.ts"
    excerpt = "  |\n2 | const k = 'hunter2';\n"
    error = f"SyntaxError: Expression expected\n{excerpt}    at {script.as_uri()}:2:13"
    (problem,) = graph(tmp_path, module(script, error=error)).problems
    assert problem == "task.ts:2: SyntaxError: Expression expected"


def test_packages_and_where_they_are_imported_are_found(tmp_path: Path) -> None:
    lib = tmp_path / "lib" / "a b.ts"
    found = graph(
        tmp_path,
        module(tmp_path / "task.ts", imports("npm:zod@3", "npm:zod@3", 2)),
        module(lib, imports("jsr:@std/fs", "jsr:@std/fs", 4)),
    )
    assert found.external == (
        External("npm:zod@3", "task.ts", 3),
        External("jsr:@std/fs", "lib/a b.ts", 5),
    )
    assert found.imports == Imports(npm=True, remote=True)
    assert found.inside


def test_a_missing_file_is_a_problem_and_a_dynamic_one_is_not(tmp_path: Path) -> None:
    gone = (tmp_path / "gone.ts").as_uri()
    other = (tmp_path / "other.ts").as_uri()
    found = graph(
        tmp_path,
        module(
            tmp_path / "task.ts",
            imports("./gone.ts", gone, 1),
            imports("./other.ts", other, 2, isDynamic=True),
        ),
        {"specifier": gone, "error": f'Module not found "{gone}".'},
        {"specifier": other, "error": f'Module not found "{other}".'},
    )
    assert found.problems == ("task.ts:2: imports './gone.ts', and there is no such file",)


def test_a_bare_name_is_told_how_to_be_written(tmp_path: Path) -> None:
    bare = {"specifier": "zod", "code": {"error": 'Import "zod" not a dependency', "span": span(0)}}
    (problem,) = graph(tmp_path, module(tmp_path / "task.ts", bare)).problems
    assert problem == 'task.ts:1: cannot find \'zod\'; write "npm:zod" or "jsr:zod"'


def test_nothing_is_told_of_a_file_the_task_may_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    outside = tmp_path / "secret.ts"
    outside.write_text("hunter2")
    modules = (
        module(folder / "task.ts", imports("../secret.ts", outside.as_uri())),
        module(outside, error="SyntaxError: Unexpected hunter2\n    at x:1:1"),
    )
    found = graph(folder, *modules)
    (problem,) = found.problems
    assert problem.startswith("task.ts:1: imports '../secret.ts', which lies outside")
    assert "hunter2" not in problem
    assert not found.inside
    granted = graph(folder, *modules, readable=[folder, tmp_path])
    assert [p for p in granted.problems if "outside" in p] == []


def test_a_link_does_not_count_as_inside(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    (tmp_path / "real.ts").write_text("")
    link = folder / "link.ts"
    link.symlink_to(tmp_path / "real.ts")
    found = graph(folder, module(folder / "task.ts", imports("./link.ts", link.as_uri())))
    assert "outside" in found.problems[0]


def test_a_main_that_nobody_calls_is_found() -> None:
    told = unused_main("const x = 1;\nasync function main() {\n}\n", "task.ts")
    assert told is not None
    assert told.startswith("task.ts:2: main is neither exported nor called")
    assert unused_main("export default async function main() {}", "task.ts") is None
    assert unused_main("function main() {}\nawait main();\n", "task.ts") is None
    assert unused_main("function main() {}\nexport default main;\n", "task.ts") is None
    assert unused_main("result = 1;\n", "task.ts") is None
    told = unused_main("function main() {}\nif (import.meta.main) main();\n", "task.ts")
    assert told is not None
    assert told.startswith("task.ts:2: import.meta.main is false in a task")


EXTERNAL = (External("npm:zz-left@^1", "task.ts", 3), External("jsr:@a/b", "lib.ts", 7))


def test_a_package_that_does_not_exist_is_named_with_its_place_and_remedy(tmp_path: Path) -> None:
    stderr = (
        "error: npm package 'zz-left' does not exist.\n"
        f"    at {(tmp_path / 'task.ts').as_uri()}:3:15\n"
        "\nStack backtrace:\n   0: <unknown>\n"
    )
    told = dependencies_failed(stderr, tmp_path, EXTERNAL, timed_out=False)
    assert told.message == (
        "task.ts:3: npm package 'zz-left' does not exist.; correct the package's name in the import"
    )
    assert (told.type.value, told.status) == ("DependenciesReady", False)


def test_an_error_without_a_place_is_put_where_its_package_is_imported(tmp_path: Path) -> None:
    stderr = "error: JSR package manifest for '@a/b' failed to load.\n"
    told = dependencies_failed(stderr, tmp_path, EXTERNAL, timed_out=False)
    assert told.message.startswith("lib.ts:7: JSR package manifest for '@a/b' failed to load.")


def test_a_host_that_may_not_be_imported_from_names_the_line_to_add(tmp_path: Path) -> None:
    stderr = (
        'error: Requires import access to "my.example.com:443", run again with the flag\n'
        f"    at {(tmp_path / 'task.ts').as_uri()}:1:8\n"
    )
    told = dependencies_failed(stderr, tmp_path, EXTERNAL, timed_out=False)
    assert 'permissions.net: ["my.example.com"]' in told.message


def test_a_fetch_that_takes_too_long_says_so(tmp_path: Path) -> None:
    told = dependencies_failed("", tmp_path, EXTERNAL, timed_out=True)
    assert told.message.startswith("task.ts:3: Deno did not end in time")
    assert "npm:zz-left@^1, jsr:@a/b" in being_prepared(EXTERNAL).message


def test_the_first_type_errors_of_the_tasks_own_files_are_told(tmp_path: Path) -> None:
    def error(number: int, path: Path) -> str:
        return (
            f"TS2322 [ERROR]: Type {number} is wrong.\nconst n = 'x';\n      ^\n"
            f"    at {path.as_uri()}:{number}:7\n\n"
        )

    text = error(99, Path("/elsewhere/lib.ts"))
    text += "".join(error(number, tmp_path / "task.ts") for number in range(1, 9))
    told = type_errors(text, tmp_path)
    assert told is not None
    lines = told.message.splitlines()
    assert lines[0] == "task.ts:1: TS2322 Type 1 is wrong."
    assert lines[-1] == "… and 3 more"
    assert len(lines) == 6
    assert type_errors("error: something else", tmp_path) is None
