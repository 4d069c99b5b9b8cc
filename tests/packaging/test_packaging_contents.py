"""What is in the wheel and the sdist, and what is not."""

from __future__ import annotations

import configparser
import subprocess
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from wheelhouse import PACKAGES, ROOT, Built

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def names(built: Built) -> set[str]:
    with zipfile.ZipFile(built.wheel) as wheel:
        return set(wheel.namelist())


def _info(built: Built, name: str) -> str:
    with zipfile.ZipFile(built.wheel) as wheel:
        (found,) = (n for n in wheel.namelist() if n.endswith(f".dist-info/{name}"))
        return wheel.read(found).decode()


def _files_of(folder: Path) -> list[Path]:
    """Give the files of a package as git would commit them, or without git all but caches."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z", str(folder)],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        return [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]


def test_the_wheel_holds_the_four_packages_and_nothing_beside_them(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert len(tops) == len(PACKAGES) + 1


def test_every_file_of_the_packages_is_in_the_wheel(names: set[str]) -> None:
    for package, folder in PACKAGES.items():
        expected = {f"{package}/{p.relative_to(folder).as_posix()}" for p in _files_of(folder)}
        assert expected
        assert not expected - names


def test_types_migrations_and_examples_are_in_the_wheel(names: set[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    for kept in ("state", "logs"):
        assert f"dicode_mcp/store/migrations/{kept}/env.py" in names
        assert any(n.startswith(f"dicode_mcp/store/migrations/{kept}/versions/0001") for n in names)
    assert "dicode_agents/examples/hello/task.yaml" in names
    assert "dicode_agents/examples/hello/task.py" in names


def test_no_tests_caches_or_documentation_are_in_the_wheel(names: set[str]) -> None:
    unwanted = ("__pycache__", ".pyc", "tests/", "docs/", "bench/", ".DS_Store", ".env")
    assert not [name for name in names if any(part in name for part in unwanted)]


def test_the_metadata_names_the_command_the_runtimes_and_the_licence(built: Built) -> None:
    metadata = Parser().parsestr(_info(built, "METADATA"))
    assert metadata["Name"] == "dicode-mcp"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "# dicode-mcp" in str(metadata.get_payload())
    assert "Apache License" in _info(built, "licenses/LICENSE")
    points = configparser.ConfigParser()
    points.read_string(_info(built, "entry_points.txt"))
    assert points["console_scripts"]["dicode"] == "dicode_mcp.cli.main:main"
    assert points["dicode_mcp.runtimes"]["python"].startswith("dicode_runtimes.python:")


def test_the_sdist_holds_sources_and_texts_and_no_caches(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        files = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO"} <= files
    assert {"dicode_mcp/daemon.py", "sdk/dicode_sdk/__init__.py"} <= files
    assert not [name for name in files if "__pycache__" in name or ".venv" in name]
