"""What a run knew is hidden in those that come of it, while it is remembered and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from dicode_mcp.environment import Environment
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.handed_down import HandedDown
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger
from dicode_mcp.runs.redaction import Redactor
from dicode_mcp.spec.model import EnvEntry, Task
from dicode_mcp.testing.rooms import Rooms, make_task


class Nobody:
    async def ask(
        self, run: Run, task: Task, entries: Sequence[EnvEntry], *, by_full_id: bool = False
    ) -> Mapping[str, str]:
        return {"GIVEN": "from-a-provider"}

    async def see_to(self, run: Run, task: Task, entry: EnvEntry) -> str:
        raise AssertionError("nothing is missing")


class Store:
    def __init__(self, **values: str) -> None:
        self.values = values

    def value_of(self, name: str) -> str | None:
        return self.values.get(name)


HOST = {"API_TOKEN": "host-t0ken", "CITY": "Hamburg-Altona"}
ENTRIES = (
    {"name": "TOKEN", "secret": "deploy"},
    {"name": "HERE", "from": "env:API_TOKEN"},
    "CITY",
    {"name": "GIVEN", "from": "task:provider"},
)
PARENT = make_task("parent", permissions={"env": list(ENTRIES), "dicode": {"tasks": ["*"]}})
ALONE = make_task("alone", permissions={"env": list(ENTRIES)})
CHILD = make_task("child")


class Family:
    """A parent with secrets, and what is made of its runs."""

    def __init__(self, room: int | None = None) -> None:
        self.rooms = Rooms()
        self.rooms.put(PARENT, CHILD)
        self.room = room
        self.secrets = Store(deploy="s3cret-value")
        self.handed = self.server()

    def restart(self) -> None:
        """Forget what was in memory."""
        self.handed = self.server()

    def server(self) -> HandedDown:
        """Give what a server that starts now has: nothing in memory."""
        environment = Environment(HOST, [self.secrets], Nobody(), Nobody())
        more = () if self.room is None else (self.room,)
        return HandedDown(environment, self.rooms.store, self.rooms.registry, *more)

    async def run(self, run_id: str, task: Task, **before: str) -> Redactor:
        """Store a run and resolve it; gives what hides in it."""
        run = Run(run_id, task.id, RunStatus.QUEUED, Trigger.SDK, 0)
        run = replace(run, **before)  # pyright: ignore[reportArgumentType]
        await self.rooms.store.add_run(run, Payload())
        return (await self.handed.resolve(run, task)).hide


def hides(hide: Redactor, text: str) -> bool:
    return hide.text(text) != text


@pytest.mark.parametrize("link", ["parent_run_id", "replay_of", "retry_of"])
async def test_what_a_run_must_not_show_those_that_come_of_it_do_not_show(link: str) -> None:
    family = Family()
    await family.run("p", PARENT)
    child = await family.run("c", CHILD, **{link: "p"})
    for value in ("s3cret-value", "host-t0ken", "from-a-provider"):
        assert hides(child, f"got {value}!")
    assert not hides(child, "Hamburg-Altona")
    assert not hides(await family.run("other", CHILD), "s3cret-value")


async def test_it_is_handed_on_over_runs_that_have_no_secret() -> None:
    family = Family()
    await family.run("p", PARENT)
    await family.run("c", CHILD, parent_run_id="p")
    assert hides(await family.run("g", CHILD, parent_run_id="c"), "from-a-provider")


async def test_what_the_parent_learns_while_it_is_on_is_hidden_in_what_it_starts_then() -> None:
    family = Family()
    hide = await family.run("p", PARENT)
    early = await family.run("c1", CHILD, parent_run_id="p")
    hide.learn({"made": "made-meanwhile"})
    assert hides(await family.run("c2", CHILD, parent_run_id="p"), "made-meanwhile")
    assert not hides(early, "made-meanwhile")


@pytest.mark.parametrize("link", ["parent_run_id", "replay_of", "retry_of"])
async def test_after_a_restart_it_is_still_hidden_whatever_it_came_from(link: str) -> None:
    family = Family()
    await family.run("p", PARENT)
    await family.run("c", CHILD, parent_run_id="p")
    family.restart()
    family.secrets.values["deploy"] = "changed-since"
    late = await family.run("g", CHILD, **{link: "c"})
    for value in ("s3cret-value", "host-t0ken", "from-a-provider"):
        assert hides(late, f"got {value}!")
    assert not hides(late, "Hamburg-Altona")


async def test_after_a_restart_a_child_that_was_queued_hides_what_its_parent_learned() -> None:
    family = Family()
    hide = await family.run("p", PARENT)
    hide.learn({"made": "made-meanwhile"})
    run = await family.rooms.store.get_run("p")
    assert run is not None
    await family.handed.keep(run, PARENT, hide)
    family.restart()
    family.rooms.remove("parent")
    child = await family.run("c", CHILD, parent_run_id="p")
    assert hides(child, "made-meanwhile")
    assert hides(child, "from-a-provider")


async def test_only_values_that_may_have_been_handed_on_are_kept() -> None:
    family = Family()
    alone = await family.run("a", ALONE)
    run = await family.rooms.store.get_run("a")
    assert run is not None
    await family.handed.keep(run, ALONE, alone)
    assert await family.rooms.store.get_hidden("a") is None
    await family.run("c", CHILD)
    assert await family.rooms.store.get_hidden("c") is None
    hide = await family.run("p", PARENT)
    hide.learn({"made": "made-meanwhile"})
    await family.run("b", ALONE, parent_run_id="p")
    kept = await family.rooms.store.get_hidden("b")
    assert kept is not None
    assert "made-meanwhile" in kept, "a replay of it gets what it was given"


async def test_a_run_whose_parent_s_values_cannot_be_read_any_more_does_not_start() -> None:
    family = Family()
    await family.run("p", PARENT)
    family.restart()

    async def locked(run_id: str) -> str | None:
        raise DicodeError(Code.SECRETS_LOCKED, "sealed with another key")

    family.rooms.store.get_hidden = locked
    with pytest.raises(DicodeError) as caught:
        await family.run("c", CHILD, parent_run_id="p")
    assert caught.value.code is Code.SECRETS_LOCKED


async def test_a_parent_that_is_gone_and_a_circle_of_runs_hide_nothing_and_end() -> None:
    family = Family()
    assert not await family.run("a", CHILD, parent_run_id="nobody")
    await family.run("b", CHILD, parent_run_id="c")
    family.handed = family.server()
    assert not await family.run("c", CHILD, parent_run_id="b", replay_of="c")


async def test_memory_is_bounded_and_what_was_let_go_of_is_read_again() -> None:
    one = (await Family().run("p", PARENT)).size
    family = Family(room=round(2.5 * one))
    asked: list[str] = []
    read = family.rooms.store.get_hidden

    async def noted(run_id: str) -> str | None:
        asked.append(run_id)
        return await read(run_id)

    family.rooms.store.get_hidden = noted
    for name in ("p1", "p2"):
        await family.run(name, PARENT)
    await family.run("c1", CHILD, parent_run_id="p1")
    assert hides(await family.run("c2", CHILD, parent_run_id="c1"), "from-a-provider")
    assert asked == [], "the newest use stays"
    for n in range(20):
        await family.run(f"more{n}", PARENT)
    late = await family.run("c3", CHILD, parent_run_id="p2")
    assert asked == ["p2"]
    assert hides(late, "s3cret-value")
    assert hides(late, "from-a-provider")


async def test_a_run_that_cannot_be_given_its_secrets_hands_nothing_down() -> None:
    family = Family()
    lacking = make_task("lacking", permissions={"env": [{"name": "X", "secret": "none"}]})
    family.rooms.put(PARENT, CHILD, lacking)
    with pytest.raises(DicodeError):
        await family.run("p", lacking)
    assert not await family.run("c", CHILD, parent_run_id="p")
