from __future__ import annotations

from pathlib import Path

import pytest

from dicode_mcp.cli.places import find_places
from dicode_mcp.errors import Code, DicodeError


def find(tmp_path: Path, data_dir: str | None = None, config: str | None = None, **env: str) -> str:
    return find_places(data_dir, config, {"HOME": str(tmp_path), **env}, str(tmp_path)).data_dir


def test_the_argument_wins_over_the_environment_and_the_config(tmp_path: Path) -> None:
    (tmp_path / "dicode.yaml").write_text("data_dir: from-config\n")
    assert find(tmp_path, "~/a", DICODE_DATA_DIR="/b") == str(tmp_path / "a")
    assert find(tmp_path, DICODE_DATA_DIR="b") == str(tmp_path / "b")
    assert find(tmp_path) == str(tmp_path / "from-config")


def test_the_config_is_searched_in_order(tmp_path: Path) -> None:
    assert find(tmp_path) == str(tmp_path / ".dicode")
    for folder, name in ((".dicode", "home"), ("env", "variable"), ("arg", "argument")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dicode.yaml").write_text(f"data_dir: /srv/{name}\n")
    assert find(tmp_path) == "/srv/home"
    env = {"DICODE_CONFIG": str(tmp_path / "env" / "dicode.yaml")}
    assert find(tmp_path, **env) == "/srv/variable"
    assert find(tmp_path, config="arg/dicode.yaml", **env) == "/srv/argument"


def test_paths_in_the_config_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    config = tmp_path / "etc" / "my.yaml"
    for text, expected in (
        ("../var", tmp_path / "var"),
        ("~/d", tmp_path / "d"),
        ("${HOME}/e", tmp_path / "e"),
        ("${CONFIGDIR}/f", tmp_path / "etc" / "f"),
    ):
        config.write_text(f"data_dir: {text}\n")
        assert find(tmp_path, config=str(config)) == str(expected)


def test_a_config_without_a_data_dir_means_the_default(tmp_path: Path) -> None:
    (tmp_path / "dicode.yaml").write_text("log_level: info\n")
    assert find(tmp_path) == str(tmp_path / ".dicode")


@pytest.mark.parametrize(
    ("text", "said"), [("a: [1\n", "dicode.yaml:2"), ("data_dir: 5\n", "must be a path")]
)
def test_a_config_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "dicode.yaml").write_text(text)
    with pytest.raises(DicodeError) as caught:
        find(tmp_path)
    assert caught.value.code is Code.INVALID_CONFIG
    assert said in caught.value.message


def test_a_named_config_that_is_not_there_is_refused_even_with_a_data_dir(tmp_path: Path) -> None:
    with pytest.raises(DicodeError) as caught:
        find(tmp_path, "/d", "absent.yaml")
    assert caught.value.code is Code.INVALID_CONFIG
