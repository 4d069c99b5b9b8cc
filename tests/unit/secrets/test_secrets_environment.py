"""What a run's environment is made of, what of it is hidden, and what is said when it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from dicode_mcp.environment import Environment, ProviderLink, too_short
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import Run, RunStatus, Trigger
from dicode_mcp.secrets.chain import EnvLink, SecretChain
from dicode_mcp.spec.model import EnvEntry, Task
from dicode_mcp.testing.rooms import make_task

RUN = Run("r1", "t", RunStatus.RUNNING, Trigger.MCP, 0)
HOST = {
    "HOME_CITY": "Hamburg-Altona",
    "API_TOKEN": "host-t0ken",
    "MYPASSWORDLESS": "not-a-telling-name",
    "DB_PWD": "host-passw0rd",
    "PWD": "/srv/here-and-now",
    "SLACK_WEBHOOK_URL": "https://hooks.example/abc",
    "GIT_TOKEN": "the-server-s-own",
    "EMPTY": "",
}


class Given:
    """Secrets, providers and prerequisites of a test."""

    def __init__(self, **secrets: str) -> None:
        self.secrets = secrets
        self.links: list[Given | ProviderLink] = []
        self.provided: dict[str, str] = {}
        self.asked: list[list[str]] = []
        self.by_full_id: list[bool] = []
        self.seen_to: list[str] = []

    def value_of(self, name: str) -> str | None:
        return self.secrets.get(name)

    async def ask(
        self, run: Run, task: Task, entries: Sequence[EnvEntry], *, by_full_id: bool = False
    ) -> Mapping[str, str]:
        self.asked.append([f"{entry.key}:{entry.name}" for entry in entries])
        self.by_full_id.append(by_full_id)
        names = {entry.name for entry in entries}
        return {name: value for name, value in self.provided.items() if name in names}

    async def see_to(self, run: Run, task: Task, entry: EnvEntry) -> str:
        self.seen_to.append(entry.name)
        return f"started for {entry.name}"

    async def resolve(self, *entries: Any) -> tuple[dict[str, str], list[str]]:
        """Give the environment, and the names of what is hidden in it."""
        room = Environment(HOST, self.links or [self], self, self, ["GIT_TOKEN"])
        task = make_task("t", permissions={"env": list(entries)})
        found = await room.resolve(RUN, task)
        assert not any(value in repr(found) for value in found.env.values() if len(value) > 3)
        return dict(found.env), [n for n, v in found.env.items() if found.hide.text(v) != v]

    async def refused(self, *entries: Any) -> DicodeError:
        with pytest.raises(DicodeError) as caught:
            await self.resolve(*entries)
        assert caught.value.hint
        return caught.value


async def test_each_origin_gives_its_value_and_secrets_are_hidden() -> None:
    given = Given(deploy="s3cret-value")
    given.provided = {"FROM_VAULT": "vault-value"}
    env, hidden = await given.resolve(
        "HOME_CITY",
        "MODE=production",
        {"name": "CITY", "from": "env:HOME_CITY"},
        {"name": "DEPLOY", "secret": "deploy"},
        {"name": "FROM_VAULT", "from": "task:vault"},
    )
    assert env == {
        "HOME_CITY": "Hamburg-Altona",
        "MODE": "production",
        "CITY": "Hamburg-Altona",
        "DEPLOY": "s3cret-value",
        "FROM_VAULT": "vault-value",
    }
    assert hidden == ["DEPLOY", "FROM_VAULT"]


async def test_host_variables_with_telling_names_are_hidden_whatever_they_are_passed_as() -> None:
    env, hidden = await Given().resolve(
        "API_TOKEN",
        {"name": "X", "from": "DB_PWD"},
        {"name": "THE_SECRET", "from": "HOME_CITY"},
        "MYPASSWORDLESS",
        "PWD",
        "SLACK_WEBHOOK_URL",
        {"name": "TOKEN_FORM", "value": "in-the-file"},
    )
    assert env["X"] == "host-passw0rd"
    assert hidden == ["API_TOKEN", "X", "THE_SECRET", "SLACK_WEBHOOK_URL"]


async def test_a_provider_is_asked_once_for_all_and_only_when_it_is_named() -> None:
    given = Given()
    await given.resolve("A=1")
    assert given.asked == []
    given.provided = {"A": "one", "B": "two"}
    await given.resolve({"name": "A", "from": "task:p"}, {"name": "B", "from": "task:p"})
    assert given.asked == [["p:A", "p:B"]]


async def test_a_provider_in_the_chain_is_asked_for_what_no_place_before_it_has() -> None:
    given, after = Given(here="of-the-store"), Given(last="of-the-last")
    given.provided = {"there": "of-the-provider", "last": "sooner"}
    given.links = [given, ProviderLink("team/vault"), ProviderLink("t"), after]
    env, hidden = await given.resolve(
        {"name": "A", "secret": "here"},
        {"name": "B", "secret": "there"},
        {"name": "C", "secret": "there"},
        {"name": "D", "secret": "last"},
    )
    assert env == {
        "A": "of-the-store",
        "B": "of-the-provider",
        "C": "of-the-provider",
        "D": "sooner",
    }
    assert hidden == ["A", "B", "C", "D"]
    assert given.asked == [["team/vault:there", "team/vault:last"]]
    assert given.by_full_id == [True]
    await given.resolve({"name": "A", "secret": "here"})
    assert len(given.asked) == 1
    # ``t`` is the task itself: a provider does not ask itself for its own secrets.
    given.links = [ProviderLink("t"), after]
    assert (await given.resolve({"name": "D", "secret": "last"}))[0] == {"D": "of-the-last"}
    assert len(given.asked) == 1


async def test_a_missing_secret_is_named_with_its_command() -> None:
    error = await Given().refused({"name": "DEPLOY", "secret": "deploy-key"})
    assert (error.code, error.data["secret"]) == (Code.SECRET_MISSING, "deploy-key")
    assert "dicode secrets set deploy-key" in (error.hint or "")


async def test_a_provider_without_the_value_is_named() -> None:
    error = await Given().refused({"name": "DEPLOY", "from": "task:vault"})
    assert (error.code, error.data["reason"]) == (Code.SECRET_MISSING, "required_secret_missing")
    assert "'vault' has no value for DEPLOY" in error.message


async def test_a_host_variable_that_is_not_set_is_named() -> None:
    error = await Given().refused({"name": "A", "from": "NOT_SET"})
    assert error.code is Code.INVALID_ARGUMENT
    assert "NOT_SET" in error.message
    assert (await Given().resolve("EMPTY"))[0] == {"EMPTY": ""}, "set, though to nothing"


async def test_all_that_is_missing_is_told_at_once_and_each_is_seen_to() -> None:
    given = Given(there="a-value")
    error = await given.refused(
        {"name": "ONE", "secret": "one", "if_missing": {"task": "ask"}},
        {"name": "THERE", "secret": "there", "if_missing": {"task": "ask"}},
        {"name": "TWO", "secret": "two"},
        {"name": "THREE", "from": "NOT_SET", "if_missing": {"task": "ask"}},
        {"name": "FOUR", "secret": "four", "optional": True, "if_missing": {"task": "ask"}},
    )
    assert given.seen_to == ["ONE", "THREE"]
    assert error.data["missing"] == ["ONE", "TWO", "THREE"]
    assert "missing besides: TWO, THREE" in error.message
    assert error.message.endswith("; started for ONE; started for THREE")


async def test_what_is_optional_and_missing_is_left_out() -> None:
    entries = [
        {"name": "A", "secret": "a", "optional": True},
        {"name": "B", "from": "NOT_SET", "optional": True},
        {"name": "C", "from": "task:vault", "optional": True},
    ]
    assert await Given().resolve(*entries) == ({}, [])


@pytest.mark.parametrize("optional", [False, True])
async def test_the_server_s_own_variables_are_nobody_s(optional: bool) -> None:
    error = await Given().refused({"name": "A", "from": "GIT_TOKEN", "optional": optional})
    assert error.code is Code.FORBIDDEN
    assert "the-server-s-own" not in error.message


async def test_a_value_too_short_to_hide_is_told_by_its_name() -> None:
    room = Environment(HOST, [Given(pin="123", key="long-enough")], Given(), Given())
    task = make_task(
        "t",
        permissions={"env": [{"name": "P", "secret": "pin"}, {"name": "K", "secret": "key"}]},
    )
    found = await room.resolve(RUN, task)
    assert found.shown == ("pin",)
    assert too_short(found.shown).startswith("[dicode] pin: shorter than 4 characters")


def test_the_chain_asks_in_order_and_never_gives_the_server_s_variables() -> None:
    environ = {"PRE_A": "of-env", "DICODE_X": "own", "PRE_TOKEN": "own", "PRE_NONE": ""}
    chain = SecretChain([EnvLink({"A": "first"}), EnvLink(environ, "PRE_", ["PRE_TOKEN"])])
    assert chain.value_of("A") == "first"
    chain = SecretChain([EnvLink({}), EnvLink(environ, "PRE_", ["PRE_TOKEN"])])
    assert [chain.value_of(n) for n in ("A", "TOKEN", "NONE", "B")] == ["of-env", None, None, None]
    assert (chain.has("A"), chain.has("TOKEN")) == ("env", None)
    assert SecretChain([EnvLink(environ, "DICODE_")]).value_of("X") is None
    assert "of-env" not in repr(EnvLink(environ, "PRE_"))


async def test_two_entries_that_go_by_one_name_are_both_hidden() -> None:
    given = Given(TOK="the-stored-value")
    given.provided = {"TOK": "the-provided-value"}
    _, hidden = await given.resolve(
        {"name": "TOK", "from": "task:prov"}, {"name": "OTHER", "secret": "TOK"}
    )
    assert hidden == ["TOK", "OTHER"]
