"""A key may do what its scopes name, and nothing that they do not."""

from __future__ import annotations

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.principal import Principal, key_principal
from dicode_mcp.service.scopes import VERBS, Scope, read_scope, read_scopes


def holder(*scopes: str) -> Principal:
    return key_principal("key:ci", "http", read_scopes(scopes))


@pytest.mark.parametrize("text", ["read", "run:infra/*", "approve:a/b", "secrets:CI_*", "admin"])
def test_a_scope_is_written_as_it_is_read(text: str) -> None:
    assert str(read_scope(text)) == text


@pytest.mark.parametrize(
    "text", ["", "runs", "RUN", "run:", "run: ", "run:a b", "run:é", "admin:x", ":x", "run:a\0"]
)
def test_what_is_no_scope_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(DicodeError) as caught:
        read_scope(text)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.hint


def test_a_key_without_scopes_is_refused() -> None:
    with pytest.raises(DicodeError):
        read_scopes([])


def test_a_verb_holds_on_the_tasks_its_glob_names() -> None:
    caller = holder("run:infra/*")
    assert caller.allows("run", "infra/backup")
    assert caller.allows("run", "infra/deep/er")
    assert not caller.allows("run", "infra")
    assert not caller.allows("run", "web/deploy")
    assert not caller.allows("author", "infra/backup")
    assert not caller.allows("secrets")


def test_whoever_may_act_on_a_task_may_read_it_and_no_other() -> None:
    caller = holder("run:infra/*", "approve:web/*")
    assert caller.sees("infra/backup")
    assert caller.allows("read", "web/deploy")
    assert not caller.sees("mail/send")
    assert not caller.has_all("read")


def test_approving_is_never_implied() -> None:
    everything_else = holder(*(verb for verb in VERBS if verb != "approve"))
    assert not everything_else.allows("approve")
    assert not everything_else.allows("approve", "x")
    assert holder("approve").allows("approve", "x")


def test_secrets_and_admin_show_no_tasks() -> None:
    caller = holder("secrets", "admin")
    assert not caller.allows("read")
    assert not caller.sees("infra/backup")


def test_scopes_of_several_globs_add_up() -> None:
    caller = holder("run:a/*", "run:b/*", "read")
    assert caller.allows("run", "a/1")
    assert caller.allows("run", "b/1")
    assert not caller.allows("run", "c/1")
    assert caller.sees("c/1")
    assert caller.has_all("read")
    assert not caller.has_all("run")


def test_a_key_can_be_narrowed_further_and_never_widened() -> None:
    caller = holder("run:infra/*", "read").narrowed(tasks="infra/web-*,mail/*", read_only=True)
    assert not caller.allows("run", "infra/web-1")
    assert caller.sees("infra/web-1")
    assert not caller.sees("infra/db")
    assert not caller.has_all("read")
    again = holder("run:infra/*").narrowed(tasks="mail/*")
    assert not again.sees("mail/send")


def test_scopes_are_values() -> None:
    assert {Scope("run"), read_scope("run")} == {Scope("run", "*")}
