"""Where agents are looked for, and what their settings may say."""

from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.agents import find


def lay(folder: Path, *files: str, settings: str | None = None) -> Path:
    place = folder / "agents" / "a"
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("print(1)\n")
    if settings is not None:
        place.mkdir(parents=True, exist_ok=True)
        (place / "agent.json").write_text(settings)
    return folder


def refused(folder: Path, name: str = "a") -> DicodeError:
    with pytest.raises(DicodeError) as caught:
        find(folder, name)
    return caught.value


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        (("agent.py", "main.py"), "agent.py"),
        (("src/main.py", "helper.py"), "src/main.py"),
        (("src/index.ts", "src/helper.ts"), "src/index.ts"),
        (("main.ts", "index.js"), "main.ts"),
    ],
)
def test_an_agent_begins_with_the_first_file_of_its_language(
    tmp_path: Path, files: tuple[str, ...], entry: str
) -> None:
    agent = find(lay(tmp_path, *files), "a")
    assert agent.entry == tmp_path / "agents" / "a" / entry


def test_files_of_two_languages_need_a_word(tmp_path: Path) -> None:
    error = refused(lay(tmp_path, "main.py", "main.ts"))
    assert error.code is Code.INVALID_SPEC
    assert "several files: main.py, main.ts" in error.message
    assert "'entry' in agents/a/agent.json" in (error.hint or "")
    lay(tmp_path, settings='{"entry": "main.ts", "env": ["KEY"], "timeout": "5m"}')
    agent = find(tmp_path, "a")
    assert agent.entry.name == "main.ts"
    assert (agent.settings.env, agent.settings.timeout) == (("KEY",), 300.0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('{"entry": "../../task.py"}', "'../../task.py' is no file of the agent's folder"),
        ('{"entry": "/etc/passwd"}', "is no file of the agent's folder"),
        ('{"entry": "gone.py"}', "'gone.py' is no file of the agent's folder"),
        ('{"entri": "main.py"}', "agents/a/agent.json:1"),
        ('{"timeout": "-1s"}', "must not be negative"),
        ('{"env": ["NO-NAME"]}', "is not the name of an environment variable"),
        ('{"env": ', "agents/a/agent.json"),
        ("[]", "agents/a/agent.json"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_with_their_place(
    tmp_path: Path, settings: str, told: str
) -> None:
    (tmp_path / "task.py").write_text("")
    error = refused(lay(tmp_path, "main.py", settings=settings))
    assert error.code is Code.INVALID_SPEC
    assert told in error.message


def test_an_agent_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    assert "it has: none" in refused(tmp_path).message
    (tmp_path / "agents" / "b").mkdir(parents=True)
    error = refused(tmp_path)
    assert (error.code, "it has: b" in error.message) == (Code.NOT_FOUND, True)
    assert "has no file to begin with" in refused(tmp_path, "b").message


@pytest.mark.parametrize("name", ["", "..", "../b", "a/b", "/etc", "a\0b", ".hidden", "x" * 200])
def test_names_are_one_plain_word(tmp_path: Path, name: str) -> None:
    assert refused(lay(tmp_path, "main.py"), name).code is Code.INVALID_ARGUMENT
