"""Secrets are set from three places, listed by name with who uses them, and never shown."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus
from dicode_mcp.registry import Registry
from dicode_mcp.secrets.chain import EnvLink, LocalLink, SecretChain
from dicode_mcp.secrets.keys import KeyRing, MasterKey
from dicode_mcp.secrets.vault import Vault
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal, key_principal, local_principal
from dicode_mcp.service.scopes import read_scopes
from dicode_mcp.service.secrets import SecretsService
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.store import MemoryStore

OWNER = local_principal("cli")
VALUE = "hunter2-hunter2"


class Room:
    def __init__(self, tmp_path: Path, vault: Vault, store: MemoryStore, clock: FakeClock) -> None:
        self.data_dir = tmp_path / "data"
        self.data_dir.mkdir()
        self.store = store
        self.vault = vault
        self.audit = Audit(store, clock)
        self.registry = Registry(EventBus(), clock, ["tasks"])
        self.environ = {"FROM_HOST": VALUE, "DICODE_X": "own", "GIT_TOKEN": "own", "EMPTY": ""}
        self.service = SecretsService(
            values=vault,
            chain=SecretChain([LocalLink(vault), EnvLink(self.environ, withheld=["GIT_TOKEN"])]),
            registry=self.registry,
            audit=self.audit,
            environ=self.environ,
            withheld=["GIT_TOKEN"],
            data_dir=self.data_dir,
        )

    async def refused(
        self, principal: Principal = OWNER, name: str = "A", **how: Any
    ) -> DicodeError:
        with pytest.raises(DicodeError) as caught:
            await self.service.set(principal, name, **how)
        assert VALUE not in str(caught.value)
        assert caught.value.hint
        return caught.value


@pytest.fixture
async def room(tmp_path: Path) -> Room:
    store, clock = MemoryStore(), FakeClock()
    vault = await Vault.open(store, KeyRing([MasterKey(b"k" * 32)]), clock, {})
    return Room(tmp_path, vault, store, clock)


def secret_file(room: Room, text: str = VALUE + "\n") -> Path:
    file = room.data_dir.parent / "token.txt"
    file.write_text(text)
    return file


async def test_a_value_is_taken_and_not_given_back(room: Room) -> None:
    answers = [
        await room.service.set(OWNER, "A", value=VALUE),
        await room.service.set(OWNER, "A", from_env="FROM_HOST"),
        await room.service.set(OWNER, "B", from_file=str(secret_file(room))),
    ]
    assert [answer["created"] for answer in answers] == [True, False, True]
    assert room.vault.value_of("A") == room.vault.value_of("B") == VALUE
    assert VALUE not in json.dumps([answers, room.service.list(OWNER)])


@pytest.mark.parametrize(
    "how", [{}, {"value": VALUE, "from_env": "FROM_HOST"}, {"from_env": "A", "from_file": "/x"}]
)
async def test_exactly_one_place_is_wanted(room: Room, how: dict[str, Any]) -> None:
    assert (await room.refused(**how)).code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("variable", ["DICODE_X", "GIT_TOKEN"])
async def test_the_server_s_own_variables_become_no_task_s_secret(
    room: Room, variable: str
) -> None:
    assert (await room.refused(from_env=variable)).code is Code.FORBIDDEN


@pytest.mark.parametrize("variable", ["UNSET", "EMPTY"])
async def test_a_variable_that_is_not_set_is_named(room: Room, variable: str) -> None:
    error = await room.refused(from_env=variable)
    assert error.code is Code.NOT_FOUND
    assert variable in error.message


async def test_a_value_given_as_a_name_is_neither_noted_nor_shown(room: Room) -> None:
    given = f"{VALUE} x"
    for call in (
        room.service.set(OWNER, given, value="v"),
        room.service.delete(OWNER, given),
        room.service.set(OWNER, "A", from_env=given),
        room.service.set(OWNER, "A", from_env=f"DICODE_{given}"),
    ):
        with pytest.raises(DicodeError) as caught:
            await call
        assert VALUE not in f"{caught.value} {caught.value.hint} {caught.value.data}"
    room.audit.close()
    await room.audit.run()
    kept = (await room.store.list_audit(after_id=0)).items
    assert [entry.target for entry in kept] == ["(not a name)", "(not a name)", "A", "A"]
    assert VALUE not in str(kept)


async def test_only_plain_files_outside_the_data_dir_are_read(room: Room) -> None:
    link = room.data_dir.parent / "link"
    link.symlink_to(secret_file(room))
    own = room.data_dir / "master.key"
    own.write_text(VALUE)
    fifo = room.data_dir.parent / "fifo"
    os.mkfifo(fifo)
    binary = room.data_dir.parent / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path in (link, own, fifo, binary, room.data_dir, Path("token.txt"), Path("/nowhere")):
        error = await room.refused(from_file=str(path))
        assert error.code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND), path


async def test_a_key_sets_the_secrets_its_scope_names(room: Room) -> None:
    ci = key_principal("key:ci", "http", read_scopes(["secrets:CI_*"]))
    await room.service.set(ci, "CI_TOKEN", value=VALUE)
    assert (await room.refused(ci, "PROD_TOKEN", value=VALUE)).code is Code.FORBIDDEN
    reader = key_principal("key:r", "http", read_scopes(["read", "run", "author", "admin"]))
    assert (await room.refused(reader, "A", value=VALUE)).code is Code.FORBIDDEN


async def test_a_key_reads_nothing_of_the_server_s_machine(room: Room) -> None:
    ci = key_principal("key:ci", "http", read_scopes(["secrets"]))
    for how in ({"from_env": "FROM_HOST"}, {"from_file": str(secret_file(room))}):
        assert (await room.refused(ci, "A", **how)).code is Code.FORBIDDEN
    admin = key_principal("key:root", "http", read_scopes(["secrets", "admin"]))
    await room.service.set(admin, "A", from_env="FROM_HOST")


async def test_a_narrowed_connection_changes_no_secret(room: Room) -> None:
    narrow = OWNER.narrowed(tasks="infra/*")
    assert (await room.refused(narrow, "A", value=VALUE)).code is Code.FORBIDDEN
    assert (await room.refused(OWNER.narrowed(read_only=True), "A", value=VALUE)).code is (
        Code.FORBIDDEN
    )


async def test_deleting_what_is_not_there_says_so(room: Room) -> None:
    await room.service.set(OWNER, "A", value=VALUE)
    assert (await room.service.delete(OWNER, "A"))["deleted"] is True
    with pytest.raises(DicodeError) as caught:
        await room.service.delete(OWNER, "A")
    assert caught.value.code is Code.NOT_FOUND


async def test_the_log_of_actions_has_names_and_no_values(room: Room) -> None:
    await room.service.set(OWNER, "A", value=VALUE)
    await room.refused(value="\0" + VALUE)
    room.audit.close()
    await room.audit.run()
    entries = (await room.store.list_audit()).items
    assert [(e.action, e.target, e.outcome) for e in entries] == [
        ("secrets_set", "A", "invalid_argument"),
        ("secrets_set", "A", "ok"),
    ]
    assert VALUE not in repr(entries)
