"""Provider tasks: one run for all the keys of a launch, a cache, and failures with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.providers import ProviderTasks
from dicode_mcp.runs.model import Run, RunRequest, RunStatus, Trigger
from dicode_mcp.testing.rooms import InstantRunner, Rooms, make_task
from dicode_mcp.testing.waiting import running, until

CANARY = "c4nary-0f-the-m1ne"


class House:
    """A registry with the provider ``vault``, whose runs give what ``gives`` says."""

    def __init__(self) -> None:
        self.gives: dict[str, str] | None = {"A": CANARY, "B": "value-b"}
        self.status = RunStatus.SUCCESS
        self.rooms = Rooms()
        self.runner = InstantRunner(self.rooms, lambda run: self.end(run))
        self.provider("vault", 60)
        self.rooms.put(make_task("t"), make_task("plain"))
        self.room = ProviderTasks(self.rooms.queue, self.rooms.registry, self.rooms.clock)
        self.user: Run | None = None

    def provider(self, name: str, ttl: int = 0, digest: str = "0", **spec: Any) -> None:
        self.rooms.put(make_task(name, digest, provider={"cache_ttl": ttl}, **spec))

    def end(self, run: Run) -> RunStatus:
        entry = self.rooms.registry.get(run.task_id)
        assert entry is not None
        assert entry.task is not None
        if run.task_id != "t" and self.gives is not None and self.status is RunStatus.SUCCESS:
            self.room.give(run, entry.task, self.gives)
        return self.status

    async def ask(self, *names: str, of: str = "vault", task_id: str = "t") -> dict[str, str]:
        if self.user is None:
            self.runner.held.add("t")
            self.user = await self.rooms.queue.submit(RunRequest("t", Trigger.MCP))
            await until(lambda: self.runner.holding == 1)
        env = [{"name": name, "from": f"task:{of}"} for name in names]
        task = make_task(task_id, permissions={"env": env})
        return await self.room.ask(self.user, task, task.spec.permissions.env)

    async def refused(self, *names: str, of: str = "vault") -> DicodeError:
        with pytest.raises(DicodeError) as caught:
            await self.ask(*names, of=of)
        assert caught.value.code is Code.SECRET_MISSING
        assert caught.value.hint
        assert CANARY not in caught.value.message
        return caught.value

    async def asked(self, of: str = "vault") -> Sequence[Run]:
        return await self.rooms.runs(of)


@pytest.fixture
async def house() -> AsyncGenerator[House]:
    made = House()
    async with running(made.runner.run()):
        yield made
        if made.user is not None:
            made.runner.release("t")


async def test_one_run_answers_for_all_names_and_knows_who_asks(house: House) -> None:
    assert await house.ask("A", "B") == {"A": CANARY, "B": "value-b"}
    (run,) = await house.asked()
    payload = await house.rooms.store.get_payload(run.id)
    assert payload is not None
    assert payload.input == {"names": ["A", "B"], "task": "t"}
    assert (run.trigger, run.actor, run.chain_depth) == (Trigger.PROVIDER, "task:t", 1)


async def test_what_is_fresh_is_not_asked_again(house: House) -> None:
    await house.ask("A")
    house.rooms.clock.advance(1)
    assert await house.ask("A", "B") == {"A": CANARY, "B": "value-b"}
    (_, second) = await house.asked()
    payload = await house.rooms.store.get_payload(second.id)
    assert payload is not None
    assert payload.input["names"] == ["B"], "A is known"
    await house.ask("A", "B")
    assert len(await house.asked()) == 2
    house.rooms.clock.advance(61)
    house.gives = {"A": "rotated"}
    assert await house.ask("A") == {"A": "rotated"}


async def test_another_version_of_a_provider_is_asked_anew(house: House) -> None:
    await house.ask("A")
    house.provider("vault", 60, "1")
    await house.ask("A")
    assert len(await house.asked()) == 2


async def test_what_one_task_was_given_another_one_has_to_ask_for(house: House) -> None:
    await house.ask("A")
    house.gives = {}
    assert await house.ask("A", task_id="plain") == {}, "the provider may refuse it"
    assert await house.ask("A") == {"A": CANARY}
    assert len(await house.asked()) == 2


async def test_without_a_ttl_nothing_is_kept(house: House) -> None:
    house.provider("fresh")
    await house.ask("A", of="fresh")
    await house.ask("A", of="fresh")
    assert len(await house.asked("fresh")) == 2


async def test_what_a_provider_does_not_have_is_left_out(house: House) -> None:
    assert await house.ask("A", "NOT_THERE") == {"A": CANARY}


async def test_a_provider_that_fails_is_unavailable(house: House) -> None:
    house.status = RunStatus.FAILURE
    error = await house.refused("A")
    (run,) = await house.asked()
    assert error.data == {"provider": "vault", "reason": "provider_unavailable"}
    assert run.id in error.message


async def test_a_provider_that_cannot_be_started_is_unavailable(house: House) -> None:
    house.rooms.pause("vault")
    assert (await house.refused("A")).data["reason"] == "provider_unavailable"
    house.rooms.put_broken("broken")
    assert (await house.refused("A", of="broken")).data["reason"] == "provider_unavailable"


async def test_a_provider_that_gives_nothing_is_misconfigured(house: House) -> None:
    house.gives = None
    error = await house.refused("A")
    assert error.data["reason"] == "provider_misconfigured"
    assert "secret=True" in error.message
    house.gives = {}
    assert await house.ask("A") == {}, "it looked, and has none"


@pytest.mark.parametrize(
    ("of", "told"),
    [("nobody", "no such task"), ("plain", "no `provider:`"), ("t", "its own provider")],
)
async def test_what_is_no_provider_is_misconfigured(house: House, of: str, told: str) -> None:
    error = await house.refused("A", of=of)
    assert error.data["reason"] == "provider_misconfigured"
    assert told in error.message


async def test_providers_that_ask_each_other_in_a_circle_are_told_so(house: House) -> None:
    """vault asks other for its own secret, and other asks vault."""
    house.provider("other")
    house.runner.held |= {"vault", "other"}
    errors: list[DicodeError] = []

    async def need(provider: str, wants: str) -> None:
        run_id = house.runner.on[provider]
        run = await house.rooms.store.get_run(run_id)
        assert run is not None
        spec = {"env": [{"name": "K", "from": f"task:{wants}"}]}
        task = make_task(provider, permissions=spec, provider={"cache_ttl": 0})
        try:
            await house.room.ask(run, task, task.spec.permissions.env)
        except DicodeError as error:
            errors.append(error)
        house.runner.release(provider, RunStatus.FAILURE)

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(house.refused("A"))
        await until(lambda: "vault" in house.runner.on)
        first = group.create_task(need("vault", "other"))
        await until(lambda: "other" in house.runner.on)
        await need("other", "vault")
        await first
    assert "vault -> other -> vault" in errors[0].message
    assert errors[0].data["reason"] == "provider_misconfigured"
    assert asking.result().data["reason"] == "provider_unavailable"
    assert len(await house.asked()) == 1


async def test_a_run_that_nobody_asked_gives_nothing(house: House) -> None:
    run = await house.rooms.queue.submit(RunRequest("vault", Trigger.MCP))
    entry = house.rooms.registry.get("vault")
    assert entry is not None
    assert entry.task is not None
    house.status = RunStatus.FAILURE
    for forged in (run, Run("x", "vault", RunStatus.RUNNING, Trigger.PROVIDER, 0)):
        with pytest.raises(DicodeError) as caught:
            house.room.give(forged, entry.task, {"A": CANARY})
        assert caught.value.code is Code.FORBIDDEN
        assert CANARY not in str(caught.value)


async def test_the_second_attempt_of_a_provider_answers(house: House) -> None:
    house.provider("flaky", retry={"attempts": 2, "backoff": "1ms"})
    tried: list[str] = []

    def end(run: Run) -> RunStatus:
        tried.append(run.id)
        entry = house.rooms.registry.get(run.task_id)
        assert entry is not None
        assert entry.task is not None
        if len(tried) == 1:
            return RunStatus.FAILURE
        house.room.give(run, entry.task, {"A": "second"})
        return RunStatus.SUCCESS

    await house.ask()
    house.end = end
    assert await house.ask("A", of="flaky") == {"A": "second"}


async def test_a_run_that_is_cancelled_while_it_asks_leaves_nothing_behind(house: House) -> None:
    house.runner.held.add("vault")
    await house.ask()
    asking = asyncio.ensure_future(house.ask("A"))
    await until(lambda: "vault" in house.runner.on)
    run = await house.rooms.store.get_run(house.runner.on["vault"])
    entry = house.rooms.registry.get("vault")
    assert run is not None
    assert entry is not None
    assert entry.task is not None
    asking.cancel()
    await asyncio.wait({asking})
    with pytest.raises(DicodeError):
        house.room.give(run, entry.task, {"A": CANARY})
    house.runner.release("vault")
