"""Checking the audit log at the command line, with a server and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Dicode, FakeServer

from dicode_mcp.cli.commands import backup

INTACT: dict[str, Any] = {"intact": True, "checked": 3, "entries": [], "since": "a", "until": "b"}


class Became(BaseException):
    """This process would be another program now."""

    def __init__(self, words: list[str]) -> None:
        super().__init__(words)
        self.words = words


@pytest.fixture
def becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    def execv(program: str, words: list[str]) -> None:
        raise Became(words)

    monkeypatch.setattr(backup.os, "execv", execv)


def _intact(arguments: dict[str, Any]) -> dict[str, Any]:
    return INTACT


def test_a_server_is_asked_unless_it_is_to_be_done_without(
    dicode: Dicode, server: FakeServer
) -> None:
    server.tools = {"get_audit": _intact}
    said = dicode("audit", "--verify")
    assert (said.code, said.out) == (0, "intact: 3 entries, from a to b\n")
    assert server.calls == [("get_audit", {"verify": True})]


@pytest.mark.usefixtures("becomes")
@pytest.mark.parametrize(
    ("given", "file", "key"),
    [
        (["--offline"], None, None),
        (["--offline", "--key", "k"], None, "k"),
        (["--backup", "b.tar.gz", "--key", "k"], "b.tar.gz", "k"),
    ],
)
def test_without_a_server_another_process_does_it(
    dicode: Dicode, server: FakeServer, given: list[str], file: str | None, key: str | None
) -> None:
    with pytest.raises(Became) as caught:
        dicode("audit", "--verify", *given)
    words = caught.value.words
    assert words[1:5] == ["-P", "-m", "dicode_mcp.backup", "audit"]
    assert words[words.index("--data-dir") + 1] == str(server.folder)
    assert ("--key" in words) is (key is not None)
    # Names of files are whole, since the other process begins elsewhere or not.
    if key is not None:
        assert Path(words[words.index("--key") + 1]).is_absolute()
    if file is not None:
        assert words[-2:] == ["--", str(Path(file).absolute())]
    assert server.calls == []


@pytest.mark.parametrize(
    "words", [["--offline"], ["--backup", "b"], ["--key", "k"], ["--verify", "--key", "k"]]
)
def test_what_goes_with_verify_is_refused_without_it(
    dicode: Dicode, server: FakeServer, words: list[str]
) -> None:
    said = dicode("audit", *words)
    assert said.code == 2
    assert "--verify" in said.err
    assert server.calls == []
