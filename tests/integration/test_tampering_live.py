"""Whoever changes what is stored is noticed: by the server at its start, and without a server."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keycalls import owner
from liveserver import Live, Serve

from dicode_mcp.backup.auditing import Checked, check_audit
from dicode_mcp.backup.restoring import Asked, restore
from dicode_mcp.backup.saving import Wanted, save
from dicode_mcp.clock import SystemClock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.secrets.master import FILE, new_key, write_keys
from dicode_mcp.service.audit_notes import BAD
from dicode_mcp.service.audit_notes import FILE as PENDING

SECRETS = {"alpha": "the first s3cret", "beta": "the second s3cret"}


def the_only(group: Any) -> DicodeError:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    assert isinstance(group, DicodeError)
    return group


async def filled(serve: Serve) -> Path:
    """Let a server have secrets and an audit log, and stop it; gives the data dir."""
    async with serve() as live:
        for name, value in SECRETS.items():
            await live.call("secrets_set", name=name, value=value)
        await live.call("secrets_list")
        await checked(live)
        return live.data


async def checked(live: Live) -> dict[str, Any]:
    return await owner(live, "get_audit", verify=True)


def change(data: Path, *statements: str) -> None:
    with sqlite3.connect(data / "state.db") as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0


# ── Secrets ──


def part(sealed: str, number: int, change: Callable[[str], str]) -> str:
    parts = sealed.split(".")
    parts[number] = change(parts[number])
    return ".".join(parts)


def flipped(text: str) -> str:
    """Change a letter in the middle for another one."""
    at = len(text) // 2
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


SEALED: dict[str, Callable[[str], str]] = {
    "version": lambda s: part(s, 0, lambda _: "v2"),
    "key id": lambda s: part(s, 1, flipped),
    "nonce": lambda s: part(s, 2, flipped),
    "ciphertext": lambda s: part(s, 3, flipped),
    "its end": lambda s: s[:-1],
    "no nonce": lambda s: part(s, 2, lambda _: ""),
    "nothing": lambda s: "",
}


@pytest.mark.parametrize("what", [*SEALED, "time", "moved", "swapped", "renamed"])
async def test_a_secret_that_was_tampered_with_stops_the_server_with_its_name(
    serve: Serve, what: str
) -> None:
    data = await filled(serve)
    saved = data.with_name("saved")
    shutil.copytree(data, saved)
    with sqlite3.connect(data / "state.db") as connection:
        sealed = dict(connection.execute("SELECT name, sealed FROM secrets").fetchall())
        if what in SEALED:
            fresh = SEALED[what](sealed["beta"])
            connection.execute("UPDATE secrets SET sealed = ? WHERE name = 'beta'", (fresh,))
        elif what == "time":
            connection.execute("UPDATE secrets SET updated_at_ms = 1 WHERE name = 'beta'")
        elif what == "renamed":
            connection.execute("UPDATE secrets SET name = 'gamma' WHERE name = 'beta'")
        else:
            connection.execute(
                "UPDATE secrets SET sealed = ? WHERE name = 'beta'", (sealed["alpha"],)
            )
            if what == "swapped":
                connection.execute(
                    "UPDATE secrets SET sealed = ? WHERE name = 'alpha'", (sealed["beta"],)
                )
    connection.close()
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        async with serve():
            pass
    error = the_only(caught.value)
    assert error.code is Code.SECRETS_LOCKED
    named = {"renamed": {"gamma"}, "swapped": {"alpha", "beta"}}.get(what, {"beta"})
    assert any(f"'{name}'" in error.message for name in named)
    assert error.hint is not None
    assert "dicode restore" in error.hint
    assert not any(value in str(error) + error.hint for value in SECRETS.values())
    # Nothing was changed by looking: what was saved goes on.
    shutil.rmtree(data)
    saved.rename(data)
    async with serve() as live:
        names = [s["name"] for s in (await live.call("secrets_list"))["secrets"]]
        assert names == sorted(SECRETS)


async def test_another_key_and_none_stop_the_server_and_no_new_one_is_made(serve: Serve) -> None:
    data = await filled(serve)
    (data / FILE).rename(data.with_name("key"))
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        async with serve():
            pass
    assert the_only(caught.value).code is Code.SECRETS_LOCKED
    assert not (data / FILE).exists()
    write_keys(data / FILE, [new_key()])
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        async with serve():
            pass
    assert "not the one of this data dir" in the_only(caught.value).message
    data.with_name("key").replace(data / FILE)
    async with serve() as live:
        assert (await checked(live))["intact"]


# ── The audit log ──

ENTRY = "(SELECT id FROM audit WHERE action = 'secrets_set' ORDER BY id LIMIT 1)"


@pytest.mark.parametrize(
    "statements",
    [
        [f"UPDATE audit SET actor = 'somebody' WHERE id = {ENTRY}"],
        [f"UPDATE audit SET at_ms = at_ms + 1 WHERE id = {ENTRY}"],
        [f"UPDATE audit SET surface = 'x' WHERE id = {ENTRY}"],
        [f"UPDATE audit SET action = 'x' WHERE id = {ENTRY}"],
        [f"UPDATE audit SET target = 'x' WHERE id = {ENTRY}"],
        [f"UPDATE audit SET outcome = 'x' WHERE id = {ENTRY}"],
        [f"UPDATE audit SET detail = CAST('{{}}' AS BLOB) WHERE id = {ENTRY}"],
        [f"UPDATE audit SET detail = CAST('no json' AS BLOB) WHERE id = {ENTRY}"],
        [f"UPDATE audit SET chain = NULL WHERE id = {ENTRY}"],
        [f"UPDATE audit SET chain = '{'0' * 64}' WHERE id = {ENTRY}"],
        [f"DELETE FROM audit WHERE id = {ENTRY}"],
        ["DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)"],
        ["DELETE FROM meta WHERE key = 'audit_head'"],
        ["UPDATE meta SET value = '{}' WHERE key = 'audit_head'"],
        ["DELETE FROM audit"],
        ["DELETE FROM audit", "DELETE FROM meta WHERE key = 'audit_head'"],
        [
            f"DELETE FROM audit WHERE id = {ENTRY}",
            "UPDATE audit SET actor = 'somebody' WHERE id = (SELECT min(id) FROM audit)",
            "UPDATE audit SET chain = NULL",
            "DELETE FROM meta WHERE key = 'audit_head'",
        ],
    ],
)
async def test_an_audit_log_that_was_tampered_with_is_found_with_and_without_a_server(
    serve: Serve, statements: list[str]
) -> None:
    data = await filled(serve)
    assert check_audit(Checked(data), {})["intact"]
    change(data, *statements)
    told = check_audit(Checked(data), {})
    assert not told["intact"]
    assert told["problem"]
    async with serve() as live:
        assert not (await checked(live))["intact"]
        # It goes on, and what was tampered with stays so.
        await live.call("secrets_set", name="gamma", value="another s3cret")
        assert not (await checked(live))["intact"]
        assert not check_audit(Checked(live.data), {})["intact"]


async def test_a_new_data_dir_is_intact_before_anything_was_done(serve: Serve) -> None:
    async with serve() as live:
        assert check_audit(Checked(live.data), {})["intact"]
        assert (await checked(live))["intact"]


@pytest.mark.parametrize("name", [".check", ".audit", ".payloads"])
async def test_a_key_of_the_server_s_own_that_is_gone_stops_it_with_its_name(
    serve: Serve, name: str
) -> None:
    data = await filled(serve)
    change(data, f"DELETE FROM secrets WHERE name = '{name}'")
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        async with serve():
            pass
    error = the_only(caught.value)
    assert (error.code, f"'{name}'" in error.message) == (Code.SECRETS_LOCKED, True)
    with sqlite3.connect(data / "state.db") as connection:
        found = connection.execute("SELECT 1 FROM secrets WHERE name = ?", (name,)).fetchall()
    connection.close()
    assert found == []


async def test_it_is_checked_beside_a_running_server_and_in_a_backup_with_the_key_apart(
    serve: Serve, tmp_path: Path
) -> None:
    data = await filled(serve)
    backup, key = tmp_path / "b.tar.gz", tmp_path / "b.key"
    async with serve():
        assert check_audit(Checked(data), {})["intact"]
        save(Wanted(data, backup, key=key), {}, SystemClock())
    told = check_audit(Checked(tmp_path / "nowhere", backup, key), {})
    assert told["intact"]
    assert told["checked"] >= 2
    write_keys(tmp_path / "other.key", [new_key()])
    with pytest.raises(DicodeError) as caught:
        check_audit(Checked(tmp_path / "nowhere", backup, tmp_path / "other.key"), {})
    assert caught.value.code is Code.SECRETS_LOCKED
    with pytest.raises(DicodeError) as caught:
        check_audit(Checked(tmp_path / "nowhere", backup), {})
    assert caught.value.code is Code.SECRETS_LOCKED
    with pytest.raises(DicodeError) as caught:
        check_audit(Checked(tmp_path / "nowhere", None, key), {})
    assert caught.value.code is Code.DATA_DIR


async def test_backup_and_restore_are_in_the_log_of_whoever_goes_on(
    serve: Serve, tmp_path: Path
) -> None:
    data = await filled(serve)
    backup, key = tmp_path / "b.tar.gz", tmp_path / "b.key"
    async with serve() as live:
        save(Wanted(data, backup, key=key), {}, SystemClock())
        [entry] = (await owner(live, "get_audit", action="backup"))["entries"]
        assert (entry["actor"], entry["surface"], entry["target"]) == ("local", "cli", "b.tar.gz")
        assert entry["detail"] == {"master_key": True, "logs": False}
        assert not (data / PENDING).exists()
    shutil.rmtree(data)
    restore(Asked(data, backup, key, False), SystemClock())
    async with serve() as live:
        [entry] = (await owner(live, "get_audit", action="restore"))["entries"]
        assert entry["target"] == "b.tar.gz"
        assert entry["detail"]["key"] == "restored"
        # The archive was taken before its own entry could be in it.
        assert (await owner(live, "get_audit", action="backup"))["entries"] == []
        assert (await checked(live))["intact"]


async def test_a_word_that_was_left_while_no_server_ran_is_taken_over_once(
    serve: Serve, tmp_path: Path
) -> None:
    data = await filled(serve)
    save(Wanted(data, tmp_path / "b.tar.gz"), {}, SystemClock())
    with (data / PENDING).open("a") as file:
        file.write("no json\n" + json.dumps({"action": 1}) + "\n" + json.dumps([]) + "\n")
    for _ in range(2):
        async with serve() as live:
            assert len((await owner(live, "get_audit", action="backup"))["entries"]) == 1
            assert (await checked(live))["intact"]
    assert os.listdir(data).count(PENDING) == 0


async def test_a_bad_word_costs_no_other_one_and_is_kept_aside(serve: Serve) -> None:
    data = await filled(serve)
    good = {"action": "backup", "target": "good", "detail": {"n": 1}}
    odd = {"action": "restore", "target": "t", "detail": {"action": "y", "outcome": 1, "self": 2}}
    bad = ["no json", '{"action": 1}', "[]", "7", '{"detail": ' + "[" * 4000, "\xff", "x" * 5000]
    (data / PENDING).write_text(
        "\n".join([bad[0], json.dumps(odd), *bad[1:], json.dumps(good)]) + "\n"
    )
    async with serve() as live:
        assert len((await owner(live, "get_audit", target="good"))["entries"]) == 1
        [entry] = (await owner(live, "get_audit", action="restore"))["entries"]
        assert entry["detail"] == odd["detail"]
        assert (await checked(live))["intact"]
    assert (data / BAD).read_text().splitlines() == bad
    assert (data / BAD).stat().st_mode & 0o777 == 0o600


async def test_a_word_that_is_no_plain_file_is_let_be(serve: Serve, tmp_path: Path) -> None:
    data = await filled(serve)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(json.dumps({"action": "backup", "target": "x", "detail": {}}) + "\n")
    (data / PENDING).symlink_to(elsewhere)
    async with serve() as live:
        assert (await owner(live, "get_audit", action="backup"))["entries"] == []
        save(Wanted(data, tmp_path / "b.tar.gz"), {}, SystemClock())
        assert len((await owner(live, "get_audit", action="backup"))["entries"]) == 1
    assert elsewhere.exists()
