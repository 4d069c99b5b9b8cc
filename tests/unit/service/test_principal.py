import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.principal import local_principal


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
