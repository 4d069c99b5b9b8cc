"""A webhook whose secret is in the store: live when it is set, changed and deleted."""

from __future__ import annotations

from hookhouse import HookHouse, problem, serving_hooks, signed

from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import SecretChanged
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.triggers.hook_secrets import HookSecretConditions
from dicode_mcp.triggers.webhook.keys import HookKeys

BODY = b'{"a": 1}'
JSON = {"content-type": "application/json"}


class Values:
    """Secrets that a test sets."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.locked = False

    def value_of(self, name: str) -> str | None:
        if self.locked:
            raise DicodeError(Code.SECRETS_LOCKED, "locked")
        return self.kept.get(name)


async def status(house: HookHouse, secret: str) -> int:
    headers = {**JSON, **signed(BODY, secret)}
    return (await house.client.post("/hooks/t", content=BODY, headers=headers)).status_code


async def test_a_stored_secret_is_used_as_it_is_at_the_moment() -> None:
    values = Values()
    async with serving_hooks(secrets=values) as house:
        house.hook("t", webhook_secret={"secret": "hook"})
        assert await status(house, "one-secret") == 503
        values.kept["hook"] = "one-secret"
        assert await status(house, "one-secret") == 200
        values.kept["hook"] = "two-secret"
        assert await status(house, "one-secret") == 403
        assert await status(house, "two-secret") == 200
        del values.kept["hook"]
        assert await status(house, "two-secret") == 503
        # The key of nothing is a key that anybody has.
        values.kept["hook"] = ""
        assert await status(house, "") == 503
        assert len(await house.runs()) == 2


async def test_a_secret_that_does_not_open_serves_nobody() -> None:
    values = Values()
    values.kept["hook"], values.locked = "one-secret", True
    async with serving_hooks(secrets=values) as house:
        house.hook("t", webhook_secret={"secret": "hook"})
        answer = await house.client.post(
            "/hooks/t", content=BODY, headers={**JSON, **signed(BODY, "one-secret")}
        )
        problem(answer, 503, "task_not_ready")
        assert "one-secret" not in answer.text


async def test_the_condition_names_the_command_and_goes_with_the_secret() -> None:
    values = Values()
    async with serving_hooks(secrets=values) as house:
        registry, bus = house.rooms.registry, house.rooms.bus
        house.hook("t", webhook_secret={"secret": "hook"})
        house.hook("u", webhook_secret="plain")
        async with running(HookSecretConditions(HookKeys(values), registry, bus).run()):

            def told(task_id: str = "t") -> str:
                entry = registry.get(task_id)
                ready = find(entry.conditions, ConditionType.READY) if entry else None
                return ready.message if ready and not ready.status else ""

            await until(lambda: "dicode secrets set hook" in told())
            assert told("u") == ""
            values.kept["hook"] = "one-secret"
            bus.publish(SecretChanged("hook"))
            await until(lambda: told() == "")
            del values.kept["hook"]
            bus.publish(SecretChanged("hook"))
            await until(lambda: "dicode secrets set hook" in told())
            house.hook("t", "1", webhook_secret="plain")
            await until(lambda: told() == "")
