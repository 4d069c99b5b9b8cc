"""Which flags come of which permissions."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec.model import EnvEntry, FsGrant, Permissions, ResourceSpec
from dicode_runtimes.deno.flags import Imports, Places, flags
from dicode_runtimes.shared import socket_path

PLACES = Places(Path("/t/x"), Path("/s/r"), Path("/s/r/k"), Path("/c"))


def made(permissions: Permissions, imports: Imports | None = None) -> dict[str, str]:
    given = flags(permissions, PLACES, imports or Imports(), None)
    return {flag.partition("=")[0]: flag.partition("=")[2] for flag in given}


def listed(value: str) -> set[str]:
    return set(value.split(","))


def test_nothing_declared_grants_the_task_folder_and_nothing_else() -> None:
    given = made(Permissions())
    assert listed(given["--allow-read"]) == {"/t/x", "/s/r/home", "/s/r/tmp", "/s/r/k"}
    assert listed(given["--allow-write"]) == {"/s/r/home", "/s/r/tmp", "/s/r/k"}
    assert given["--deny-write"] == "/c"
    assert given["--allow-net"] == "unix:/s/r/k"
    assert given["--allow-import"] == "none.invalid"
    absent = {"--allow-run", "--allow-sys", "--allow-ffi", "--allow-all", "-A", "--allow-scripts"}
    assert not absent & set(given)
    always = {"--no-prompt", "--no-config", "--no-lock", "--cached-only", "--no-remote", "--no-npm"}
    assert always <= set(given)
    assert "SECRET" not in given["--allow-env"]


def test_variables_programs_and_system_calls_are_granted_by_name() -> None:
    env = (EnvEntry(name="TOKEN", source="host", key="TOKEN"),)
    given = made(Permissions(env=env, run=("git", "bin/tool"), sys=("hostname",)))
    assert "TOKEN" in listed(given["--allow-env"])
    assert given["--allow-run"] == "git,/t/x/bin/tool"
    assert given["--allow-sys"] == "hostname"
    assert made(Permissions(run=("*",)))["--allow-run"] == ""


def test_folders_are_granted_as_written_and_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    grants = (
        FsGrant(path=str(tmp_path / "link"), permission="r"),
        FsGrant(path="/out", permission="w"),
        FsGrant(path="/both", permission="rw"),
    )
    given = made(Permissions(fs=grants))
    real = str((tmp_path / "real").resolve())
    assert {str(tmp_path / "link"), real, "/both"} <= listed(given["--allow-read"])
    assert "/out" not in listed(given["--allow-read"])
    assert {"/out", "/both"} <= listed(given["--allow-write"])
    assert real not in listed(given["--allow-write"])


def test_a_path_with_a_comma_cannot_become_two_grants() -> None:
    with pytest.raises(DicodeError, match="comma") as caught:
        made(Permissions(fs=(FsGrant(path="/a,/etc", permission="r"),)))
    assert caught.value.code is Code.INVALID_SPEC


def test_hosts_are_granted_and_private_addresses_refused_behind_them() -> None:
    given = made(Permissions(net=("api.example.com", "db.example.com:5432", "2001:db8::1")))
    assert listed(given["--allow-net"]) == {
        "unix:/s/r/k",
        "api.example.com",
        "db.example.com:5432",
        "[2001:db8::1]",
    }
    denied = listed(given["--deny-net"])
    assert {"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= denied
    assert {"169.254.0.0/16", "0.0.0.0/8", "[::1]"} <= denied


def test_any_public_host_still_leaves_private_ones_out() -> None:
    given = made(Permissions(net=("*",)))
    assert given["--allow-net"] == ""
    assert "127.0.0.0/8" in listed(given["--deny-net"])


def test_a_listed_private_address_is_left_out_of_the_refusal_alone() -> None:
    denied = listed(made(Permissions(net=("10.1.2.3:5432", "*")))["--deny-net"])
    assert "10.0.0.0/8" not in denied
    assert "10.1.2.3/32" not in denied
    assert "10.1.2.2/32" in denied
    assert "10.128.0.0/9" in denied
    assert "127.0.0.0/8" in denied


@pytest.mark.parametrize(
    ("rule", "open_", "shut"),
    [
        ("localhost:5432", "127.0.0.0/8", "10.0.0.0/8"),
        ("db:5432", "10.0.0.0/8", "127.0.0.0/8"),
        ("db.internal", "192.168.0.0/16", "127.0.0.0/8"),
        ("api.example.com:443", "", "10.0.0.0/8"),
        ("metadata", "10.0.0.0/8", "169.254.0.0/16"),
    ],
)
def test_a_name_that_is_local_by_its_form_counts_as_listed(
    rule: str, open_: str, shut: str
) -> None:
    denied = listed(made(Permissions(net=(rule,)))["--deny-net"])
    assert open_ not in denied
    assert shut in denied


def test_prepared_modules_may_be_imported_and_nothing_fetched() -> None:
    given = made(Permissions(net=("my.example.com",)), Imports(npm=True, remote=True))
    assert "--no-npm" not in given
    assert "--no-remote" not in given
    assert "--cached-only" in given
    assert {"jsr.io:443", "my.example.com:443"} <= listed(given["--allow-import"])


def test_a_memory_limit_bounds_the_heap() -> None:
    given = flags(Permissions(), PLACES, Imports(), ResourceSpec(memory=256 * 1024 * 1024))
    assert "--v8-flags=--max-old-space-size=256" in given


def test_a_sockets_path_fits_however_long_the_data_dir_is() -> None:
    assert socket_path(Path("/data/runs/1")) == Path("/data/runs/1/ipc/sock")
    deep = Path("/" + "x" * 200)
    short = socket_path(deep / "1")
    assert len(str(short)) < 100
    assert short != socket_path(deep / "2")
    assert short == socket_path(deep / "1")
