"""``dicode service``: the files it writes, and what it does with the managers."""

from __future__ import annotations

import json
import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cli_fakes import Dicode

from dicode_mcp.cli import managers, process
from dicode_mcp.cli.managers import Launchd, Systemd
from dicode_mcp.cli.places import Places
from dicode_mcp.cli.units import Definition, is_ours, launchd_agent, systemd_unit
from dicode_mcp.errors import DicodeError

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="the fake managers look at processes in /proc"
)

HERE = Path(__file__).parent
ODD = Definition(
    command=("/py thon/bin/python", "-m", 'a"b', "c\\d", "e%f", "g$h", "i'j"),
    folder="/home/me %n",
    path="/usr/bin:/opt/a b",
    log="/data/server.log",
    stop_seconds=45,
)


@pytest.fixture
def fake(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Fake managers on PATH, which run the fake daemon; gives the folder of their state."""
    state, programs = tmp_path / "managers", tmp_path / "bin"
    state.mkdir()
    programs.mkdir()
    for name in ("systemctl", "journalctl", "launchctl"):
        script = shlex.join([sys.executable, "-I", "-S", str(HERE / "fake_managers.py"), name])
        (programs / name).write_text(f'#!/bin/sh\nexec {script} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:relative:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_MANAGERS", str(state))
    for name in ("XDG_CONFIG_HOME", "DICODE_PORT"):
        monkeypatch.delenv(name, raising=False)

    def command(places: Places, arguments: Sequence[str]) -> list[str]:
        words = [sys.executable, str(HERE / "fake_daemon.py"), "--data-dir", places.data_dir]
        config = ["--config", places.named_config] if places.named_config else []
        return [*words, *config, *arguments]

    monkeypatch.setattr(process, "daemon_command", command)
    yield state
    process.stop(Places(str(data_dir)))


@pytest.fixture
def systemd(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On Linux; gives the unit's path."""

    def own(env: object) -> Systemd:
        return Systemd(os.environ, str(tmp_path / "linger"))

    monkeypatch.setattr(managers, "own_manager", own)
    return tmp_path / ".config" / "systemd" / "user" / "dicode.service"


@pytest.fixture
def launchd(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On macOS; gives the agent's path."""

    def own(env: object) -> Launchd:
        return Launchd(os.environ, 501)

    monkeypatch.setattr(managers, "own_manager", own)
    return tmp_path / "Library" / "LaunchAgents" / "dicode.plist"


def calls(state: Path) -> list[str]:
    """Give the calls that change something."""
    asking = ("systemctl --user is-", "systemctl --user show", "launchctl print", "launchctl ver")
    lines = (state / "calls").read_text().splitlines()
    return [line for line in lines if not line.startswith((*asking, "journalctl"))]


def exec_start(unit: Path) -> list[str]:
    (line,) = [x for x in unit.read_text().splitlines() if x.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


def test_install_writes_the_unit_starts_it_and_returns_when_the_server_answers(
    dicode: Dicode, fake: Path, systemd: Path, data_dir: Path
) -> None:
    said = dicode("service", "install", "--port", "7")
    assert said.code == 0, said.err
    found = process.holder(Places(str(data_dir)))
    assert found is not None
    assert f"wrote {systemd} and started the service (pid {found.pid})" in said.out
    assert "journalctl --user -u dicode" in said.err
    assert "loginctl enable-linger" in said.err
    assert calls(fake) == [
        "systemctl --user daemon-reload",
        "systemctl --user enable dicode.service",
        "systemctl --user start dicode.service",
    ]
    assert is_ours(systemd.read_text())
    assert exec_start(systemd)[2:] == ["--data-dir", str(data_dir), "--port", "7"]


def test_install_again_changes_nothing_and_after_a_change_restarts(
    dicode: Dicode, fake: Path, systemd: Path
) -> None:
    first = json.loads(dicode("service", "install", "--json").out)
    again = json.loads(dicode("service", "install", "--json").out)
    assert (first["action"], again["action"]) == ("installed", "unchanged")
    assert again["pid"] == first["pid"]
    changed = json.loads(dicode("service", "install", "--no-http", "--json").out)
    assert changed["action"] == "updated"
    assert changed["pid"] != first["pid"]
    assert calls(fake)[-1] == "systemctl --user restart dicode.service"


def test_the_service_gets_what_this_terminal_would_find(
    dicode: Dicode, systemd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "tasks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DICODE_PORT", "7")
    source = ["--source", str(tmp_path / "here" / "tasks"), "--port", "7"]
    assert exec_start_of(dicode("service", "install", "--print").out)[4:] == source
    (tmp_path / "here" / "dicode.yaml").write_text("execution: {drain: 90}\n")
    text = dicode("service", "install", "--print", "--port", "8").out
    config = ["--config", str(tmp_path / "here" / "dicode.yaml"), "--port", "8"]
    assert exec_start_of(text)[4:] == config
    assert "TimeoutStopSec=115" in text
    assert f"WorkingDirectory={tmp_path}\n" in text
    (path,) = [line for line in text.splitlines() if line.startswith("Environment=")]
    assert "relative" not in path
    assert str(tmp_path / "bin") in path
    assert not systemd.exists()


def exec_start_of(text: str) -> list[str]:
    (line,) = [x for x in text.splitlines() if x.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


def test_the_real_server_is_started_by_the_absolute_interpreter(
    dicode: Dicode, data_dir: Path
) -> None:
    words = exec_start_of(systemd_unit(definition(process.daemon_command(Places("/d"), []))))
    assert words == [sys.executable, "-P", "-m", "dicode_mcp.daemon", "--data-dir", "/d"]
    assert os.path.isabs(words[0])


def definition(command: list[str]) -> Definition:
    return ODD._replace(command=tuple(command))


def test_a_config_with_errors_is_not_installed(
    dicode: Dicode, systemd: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("servr: {}\n")
    said = dicode("service", "install", "--config", "bad.yaml")
    assert said.code == 2
    assert "bad.yaml:1" in said.err
    assert "did you mean 'server'" in said.err
    assert not systemd.exists()


def test_a_unit_of_somebody_else_is_kept_unless_forced(
    dicode: Dicode, fake: Path, systemd: Path
) -> None:
    systemd.parent.mkdir(parents=True)
    systemd.write_text("[Service]\nExecStart=/bin/other\n")
    for words in (("install",), ("remove",)):
        said = dicode("service", *words)
        assert said.code == 2
        assert "--force" in said.err
        assert systemd.read_text().endswith("/bin/other\n")
    assert calls(fake) == []
    assert dicode("service", "install", "--force").code == 0
    assert is_ours(systemd.read_text())


def test_a_server_that_is_no_service_is_named_and_left_alone(
    dicode: Dicode, systemd: Path, data_dir: Path
) -> None:
    dicode("serve", "-d")
    found = process.holder(Places(str(data_dir)))
    assert found is not None
    said = dicode("service", "install")
    assert said.code == 2
    assert f"pid {found.pid}" in said.err
    assert "dicode stop" in said.err
    assert not systemd.exists()
    assert process.holder(Places(str(data_dir))) == found


def test_where_no_manager_answers_it_says_what_to_do_instead(
    dicode: Dicode, fake: Path, systemd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake / "away").touch()
    for words in (("install",), ("status",), ("remove",)):
        said = dicode("service", *words)
        assert said.code == 2
        assert "no service manager answers here" in said.err
        assert "dicode serve" in said.err
    assert not systemd.exists()
    assert "ExecStart=" in dicode("service", "install", "--print").out
    monkeypatch.setenv("PATH", "/nowhere")
    said = dicode("service", "install", "--json")
    error = json.loads(said.out)["error"]
    assert (said.code, error["code"]) == (2, "not_supported")
    assert "systemctl is not installed" in error["message"]


def test_a_service_that_cannot_start_is_told_in_the_servers_words(
    dicode: Dicode, systemd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = [sys.executable, "-c", "import sys; sys.exit('dicode: port 1 is taken')"]

    def command(places: Places, arguments: Sequence[str]) -> list[str]:
        return fail

    monkeypatch.setattr(process, "daemon_command", command)
    said = dicode("service", "install")
    assert said.code == 2
    assert "did not start: port 1 is taken" in said.err
    assert "journalctl" in said.err
    status = dicode("service", "status", "--json")
    assert (status.code, json.loads(status.out)["failed"]) == (1, True)


def test_status_tells_installed_from_running(dicode: Dicode, systemd: Path) -> None:
    before = dicode("service", "status")
    assert (before.code, "not installed" in before.out) == (1, True)
    dicode("service", "install")
    during = dicode("service", "status", "--json")
    facts = json.loads(during.out)
    assert (during.code, facts["installed"], facts["active"]) == (0, True, True)
    assert f"running (pid {facts['pid']})" in dicode("service", "status").out


def test_remove_ends_the_service_and_keeps_the_data(
    dicode: Dicode, fake: Path, systemd: Path, data_dir: Path
) -> None:
    assert json.loads(dicode("service", "remove", "--json").out)["removed"] is False
    dicode("service", "install")
    said = dicode("service", "remove")
    assert said.code == 0
    assert f"removed {systemd}" in said.out
    assert str(data_dir) in said.err
    assert not systemd.exists()
    assert process.holder(Places(str(data_dir))) is None
    assert "systemctl --user daemon-reload" in calls(fake)[-2]


def test_a_manager_that_refuses_is_quoted_and_the_file_stays(
    dicode: Dicode, fake: Path, systemd: Path
) -> None:
    dicode("service", "install")
    (fake / "stubborn").touch()
    said = dicode("service", "remove")
    assert said.code == 1
    assert "Failed to stop it: no reason" in said.err
    assert systemd.exists()


def test_restart_leaves_a_service_with_its_manager(
    dicode: Dicode, fake: Path, systemd: Path, data_dir: Path
) -> None:
    dicode("service", "install")
    first = process.holder(Places(str(data_dir)))
    assert dicode("restart").code == 0
    second = process.holder(Places(str(data_dir)))
    assert first is not None
    assert second is not None
    assert first.pid != second.pid
    assert json.loads(dicode("service", "status", "--json").out)["pid"] == second.pid
    said = dicode("restart", "--port", "9")
    assert said.code == 2
    assert "dicode service install" in said.err


@pytest.mark.slow
def test_launchd_gets_an_agent_and_updates_it(
    dicode: Dicode, fake: Path, launchd: Path, data_dir: Path
) -> None:
    first = json.loads(dicode("service", "install", "--json").out)
    assert json.loads(dicode("service", "install", "--json").out)["pid"] == first["pid"]
    changed = json.loads(dicode("service", "install", "--no-http", "--json").out)
    assert (changed["action"], changed["pid"] == first["pid"]) == ("updated", False)
    agent = plistlib.loads(launchd.read_bytes())
    assert agent["ProgramArguments"][2:] == ["--data-dir", str(data_dir), "--no-http"]
    assert agent["StandardErrorPath"] == str(data_dir / "server.log")
    assert calls(fake) == [
        "launchctl enable gui/501/dicode",
        f"launchctl bootstrap gui/501 {launchd}",
        "launchctl kickstart gui/501/dicode",
        "launchctl bootout gui/501/dicode",
        "launchctl enable gui/501/dicode",
        f"launchctl bootstrap gui/501 {launchd}",
    ]
    assert dicode("service", "status").code == 0
    assert dicode("service", "remove").code == 0
    assert not launchd.exists()
    assert dicode("service", "status").code == 1


def test_launchd_without_a_graphical_session_uses_the_users_domain(
    dicode: Dicode, fake: Path, launchd: Path
) -> None:
    (fake / "no-gui").touch()
    assert dicode("service", "install").code == 0
    assert calls(fake)[-1] == f"launchctl bootstrap user/501 {launchd}"


def test_lingering_is_advised_only_where_it_is_off(tmp_path: Path) -> None:
    manager = Systemd({"HOME": "/h", "USER": "me"}, str(tmp_path))
    assert "loginctl enable-linger me" in manager.advice()[-1]
    (tmp_path / "me").touch()
    assert not any("linger" in line for line in manager.advice())


@pytest.mark.parametrize("write", [systemd_unit, launchd_agent])
@pytest.mark.parametrize("bad", ["/a\nExecStart=/bin/evil", "/a\x00", "/a\x7f"])
def test_a_path_with_control_characters_is_refused(
    write: Callable[[Definition], str], bad: str
) -> None:
    for changed in (ODD._replace(folder=bad), ODD._replace(command=("/py", bad))):
        with pytest.raises(DicodeError, match="control character"):
            write(changed)


def test_odd_paths_reach_launchd_as_they_are() -> None:
    text = launchd_agent(ODD)
    assert is_ours(text)
    agent = plistlib.loads(text.encode())
    assert tuple(agent["ProgramArguments"]) == ODD.command
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["ExitTimeOut"] == ODD.stop_seconds


def test_odd_paths_are_quoted_for_systemd() -> None:
    text = systemd_unit(ODD)
    assert is_ours(text)
    line = r'ExecStart="/py thon/bin/python" "-m" "a\"b" "c\\d" "e%%f" "g$$h" "i' + "'" + 'j"'
    assert line in text
    assert "WorkingDirectory=/home/me %%n\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_itself_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "dicode.service"
    unit.write_text(systemd_unit(definition([sys.executable, "-m", 'a "b" %h $HOME'])))
    (tmp_path / "run").mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
