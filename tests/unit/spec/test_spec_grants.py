"""Which paths a task may be granted: however they are spelled, and wherever links lead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from dicode_mcp.spec.grants import Ground, absolute, astray, refusal
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.problems import SpecError


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Give a task in a folder of sources, and a server in a home beside it."""
    home, folder = tmp_path / "home", tmp_path / "tasks" / "t"
    for made in (home / ".dicode" / "runs", home / "work", folder / "data", tmp_path / "etc"):
        made.mkdir(parents=True)
    (home / ".dicode" / "master.key").write_text("k")
    (tmp_path / "etc" / "dicode.yaml").write_text("{}")
    return Ground(folder, home, home / ".dicode", (folder,), (tmp_path / "etc" / "dicode.yaml",))


def judged(text: str, ground: Ground, permission: str = "r") -> str:
    found = refusal(absolute(text, ground), permission, ground)
    return found[0] if found else ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/", "the whole machine"),
        ("//", "the whole machine"),
        ("/./", "the whole machine"),
        ("/usr/../", "the whole machine"),
        ("../../../../../../../../../../..", "the whole machine"),
        ("/proc", "the kernel's own"),
        ("//proc", "the kernel's own"),
        ("/proc/self/root", "the kernel's own"),
        ("/proc/1/root", "the kernel's own"),
        ("/proc/1/environ", "the kernel's own"),
        ("/usr/../proc/sys", "the kernel's own"),
        ("/sys", "the kernel's own"),
        ("/sys/fs/cgroup", "the kernel's own"),
        ("/dev", "the kernel's own"),
        ("/dev/shm", "the kernel's own"),
        ("/dev/mem", "the kernel's own"),
        ("/run", "the machine's services or of your session"),
        ("/var/run", "the machine's services or of your session"),
        ("/run/user", "the machine's services or of your session"),
        ("/run/user/1000", "the machine's services or of your session"),
        ("/run/user/1000/bus", "the machine's services or of your session"),
        ("/run/docker.sock", "the container engine"),
        ("/var/run/docker.sock", "the container engine"),
        ("/run/../var/run/./docker.sock", "the container engine"),
        ("/somewhere/else/docker.sock", "the container engine"),
        ("/run/podman/podman.sock", "the container engine"),
        ("/run/containerd/containerd.sock", "the container engine"),
        ("~/podman.sock", "the container engine"),
        ("~", "holds the server's data dir"),
        ("~/", "holds the server's data dir"),
        ("~/work/..", "holds the server's data dir"),
        ("~/.dicode", "holds the server's data dir"),
        ("~/.dicode/master.key", "inside the server's data dir"),
        ("~/.dicode/not/there", "inside the server's data dir"),
        ("~/work/../.dicode/runs", "inside the server's data dir"),
        ("../../home", "holds the server's data dir"),
        ("../../etc", "the server's own configuration"),
        ("../../etc/dicode.yaml", "the server's own configuration"),
    ],
)
def test_a_path_that_opens_the_server_or_the_machine_is_refused(
    ground: Ground, text: str, why: str
) -> None:
    for permission in ("r", "w", "rw"):
        assert why in judged(text, ground, permission), permission


@pytest.mark.parametrize(
    "target",
    ["/", "/proc", "/proc/self/root", "/sys", "/run/user", "/var/run", "/nowhere/docker.sock",
     "~/.dicode", "~/.dicode/master.key", "~", "../../etc"],
)  # fmt: skip
def test_a_link_is_judged_by_where_it_leads(ground: Ground, target: str) -> None:
    place = os.path.normpath(ground.folder / target.replace("~", str(ground.home)))
    (ground.folder / "link").symlink_to(place)
    (ground.folder / "second").symlink_to("link")
    (ground.folder / "above").symlink_to(os.path.dirname(place))
    assert judged("link", ground)
    assert judged("second", ground)
    assert judged(f"above/{os.path.basename(place)}", ground)
    assert judged("data/../link/./", ground)


def test_an_engine_s_socket_in_the_home_is_found(ground: Ground) -> None:
    socket = ground.home / ".docker" / "run" / "docker.sock"
    assert judged("~/.docker", ground) == ""
    socket.parent.mkdir(parents=True)
    socket.touch()
    assert "opens the container engine" in judged("~/.docker", ground)
    assert "opens the container engine" in judged("~/.docker/run", ground)


@pytest.mark.parametrize(
    ("text", "permission"),
    [
        ("data", "rw"),
        (".", "r"),
        ("~/work", "rw"),
        ("~/.dicodes", "rw"),
        ("~user", "r"),
        ("/run/postgresql", "rw"),
        ("/runs", "rw"),
        ("/process", "r"),
        ("/srv/docker.socket", "r"),
    ],
)
def test_other_paths_are_granted(ground: Ground, text: str, permission: str) -> None:
    assert judged(text, ground, permission) == ""


@pytest.mark.parametrize(
    "text", [".", "task.yaml", "task.py", "data/..", "data/../task.py", "..", "../"]
)
def test_a_task_is_not_given_itself_to_write(ground: Ground, text: str) -> None:
    assert "its own manifest or script" in judged(text, ground, "w")
    assert judged(text, ground, "r") == ""


def test_two_slashes_are_one(ground: Ground) -> None:
    assert absolute("//srv//data/", ground) == "/srv/data"


# ── When a run begins ──


@pytest.mark.parametrize(
    ("real", "why"),
    [
        ("/", "the whole machine"),
        ("/proc/1/root", "the kernel's own"),
        ("/run/user/0", "the machine's services"),
        ("/var/run/docker.sock", "the container engine"),
        ("HOME", "holds the server's data dir"),
        ("HOME/.dicode", "holds the server's data dir"),
        ("HOME/.dicode/master.key", "inside the server's data dir"),
        ("ETC/dicode.yaml", "the server's own configuration"),
    ],
)
def test_a_path_that_leads_elsewhere_by_now_is_refused(ground: Ground, real: str, why: str) -> None:
    etc = str(ground.guarded[0].parent)
    real = real.replace("HOME", os.path.realpath(ground.home)).replace("ETC", etc)
    for permission in ("r", "rw"):
        found = astray(str(ground.home / "work" / "x"), real, permission, ground)
        assert found is not None
        assert why in found[0]


def test_a_path_that_leads_where_it_did_is_granted(ground: Ground) -> None:
    work = str(ground.home / "work")
    assert astray(work, work, "rw", ground) is None
    assert astray(work, "/srv/elsewhere", "rw", ground) is None
    skills = str(ground.data_dir / "checkouts" / "a" / "skills")
    assert astray(skills, os.path.realpath(skills), "r", ground) is None
    assert astray(skills, os.path.realpath(skills), "rw", ground) is not None
    key = os.path.realpath(ground.data_dir / "master.key")
    assert astray(skills, key, "r", ground) is not None


def test_a_link_to_the_task_itself_does_not_make_it_writable(ground: Ground) -> None:
    script = os.path.realpath(ground.folder / "task.py")
    assert astray("/srv/link", script, "rw", ground) is not None
    assert astray("/srv/link", os.path.realpath(ground.folder), "w", ground) is not None


# ── In a file ──


def load(ground: Ground, path: str, environ: Mapping[str, str]) -> str:
    (ground.folder / "task.py").touch()
    (ground.folder / "task.yaml").write_text(
        "name: t\nruntime: python\ntrigger: {manual: true}\n"
        f"permissions:\n  fs:\n    - {{path: '{path}', permission: r}}\n"
    )
    loader = TaskLoader(
        runtimes={"python": ("task.py",)},
        environ=environ,
        home=ground.home,
        data_dir=ground.data_dir,
        config_dir=ground.guarded[0].parent,
        guarded=ground.guarded,
    )
    root = ground.folder.parent
    return (
        loader.load(ground.folder, task_id="t", source="s", source_root=root)
        .spec.permissions.fs[0]
        .path
    )


@pytest.mark.parametrize(
    "path",
    ["${WHERE}", "${WHERE}/", "${DATADIR}", "${DATADIR}/runs", "${HOME}", "${CONFIGDIR}",
     "${HOME}/work/../.dicode", "${TASK_DIR}/../../home", "${SOURCE_ROOT}/../home/.dicode", "/",
     "/run/user/${ID}", "${EMPTY}/", "${PROC}/self/mem"],
)  # fmt: skip
def test_what_a_path_is_written_with_does_not_matter(ground: Ground, path: str) -> None:
    environ = {"WHERE": str(ground.data_dir), "ID": "0", "EMPTY": "", "PROC": "/proc"}
    with pytest.raises(SpecError) as caught:
        load(ground, path, environ)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (6, "permissions.fs[0].path")
    assert problem.hint


def test_a_variable_that_leads_elsewhere_is_granted(ground: Ground) -> None:
    environ = {"WHERE": str(ground.home / "work")}
    assert load(ground, "${WHERE}/x", environ) == str(ground.home / "work" / "x")
