import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.principal import key_principal, local_principal
from dicode_mcp.service.scopes import VERBS, read_scopes


def test_the_local_user_may_do_all_but_approve() -> None:
    principal = local_principal("mcp")
    assert principal.allows("run", "any/task")
    assert not principal.allows("approve", "any/task")


def test_read_only_takes_every_verb_but_read() -> None:
    principal = local_principal("mcp").narrowed(read_only=True)
    assert principal.allows("read")
    assert not principal.allows("run", "t")
    with pytest.raises(DicodeError) as caught:
        principal.require("run", "t")
    assert caught.value.code is Code.FORBIDDEN
    assert "read-only" in caught.value.message


def test_globs_hide_every_other_task() -> None:
    principal = local_principal("mcp").narrowed(tasks="infra/*, hello")
    assert principal.sees("infra/deep/one")
    assert principal.sees("hello")
    assert not principal.sees("hello2")


def test_narrowing_never_widens() -> None:
    principal = local_principal("mcp").narrowed(read_only=True, toolsets=["tasks"])
    again = principal.narrowed(read_only=False, toolsets=["tasks", "runs"])
    assert again.read_only
    assert again.toolsets == frozenset({"tasks"})
    with pytest.raises(DicodeError):
        local_principal("mcp").narrowed(tasks="a").narrowed(tasks="*")


def test_keys_are_given_by_the_terminal_and_by_who_may_and_never_by_an_agent() -> None:
    admin = key_principal("key:boss#1", "mcp", read_scopes(["admin"]))
    assert admin.administers
    assert local_principal("cli").administers
    for other in (
        local_principal("mcp"),
        local_principal("http"),
        local_principal("mcp").narrowed(surface="http"),
        local_principal("cli").narrowed(read_only=True),
        key_principal("key:a#1", "mcp", read_scopes(["read", "run", "author", "approve"])),
        admin.narrowed(read_only=True),
    ):
        assert not other.administers
        with pytest.raises(DicodeError):
            other.require_administration()


def test_no_verb_implies_another_but_acting_implies_reading() -> None:
    for verb in ("read", "run", "author", "approve"):
        caller = key_principal("key:a#1", "mcp", read_scopes([f"{verb}:infra/*"]))
        assert {v for v in VERBS if caller.allows(v, "infra/x")} == {verb, "read"}
        assert {v for v in VERBS if caller.allows(v, "web/x")} == set()
        assert not caller.has_all("read")
    for verb in ("secrets", "admin"):
        caller = key_principal("key:a#1", "mcp", read_scopes([verb]))
        assert {v for v in VERBS if caller.allows(v)} == {verb}
        assert not caller.sees("infra/x")
