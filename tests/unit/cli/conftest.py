"""What the tests of the command line share: a data dir, a fake server on it, the entry point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_fakes import Dicode, FakeServer, Said

from dicode_mcp.cli.main import main


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("DICODE_DATA_DIR", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DICODE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def server(data_dir: Path) -> Iterator[FakeServer]:
    with FakeServer(data_dir) as fake:
        yield fake


@pytest.fixture
def dicode(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> Dicode:
    def call(*words: str) -> Said:
        try:
            code = main(list(words))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call
