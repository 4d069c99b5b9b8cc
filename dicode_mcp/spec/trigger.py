"""What starts a task: the five kinds of trigger, and the options that belong to each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from dicode_mcp.spec.base import Findings, Model, Raw, fail
from dicode_mcp.spec.fields import (
    SOME,
    Cron,
    Duration,
    Flag,
    HookPath,
    Line,
    Positive,
    PositiveDuration,
    TaskRef,
    Timezone,
)
from dicode_mcp.spec.problems import describe

KINDS = ("cron", "webhook", "manual", "chain", "daemon")

OPTIONS: Mapping[str, str] = {
    "timezone": "cron",
    "catchup": "cron",
    "jitter": "cron",
    "webhook_secret": "webhook",
    "auth": "webhook",
    "methods": "webhook",
    "mode": "webhook",
    "rate_limit": "webhook",
    "restart": "daemon",
}
"""The trigger each option belongs to."""


class SecretRef(Model):
    """A key of the secrets store, by name."""

    secret: Line


class ChainTrigger(Model):
    """Start after other tasks end. ``sources`` are ids as written."""

    sources: Annotated[
        tuple[TaskRef, ...],
        Field(alias="from"),
        *SOME,
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    ]
    join: Literal["all", "any"] = "any"
    on: Literal["success", "failure", "always"] = "success"

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Refuse a task named twice, and a join of fewer than two."""
        names = raw.get("from", raw.get("sources"))
        few = isinstance(names, str) or (isinstance(names, (list, tuple)) and len(names) == 1)  # pyright: ignore[reportUnknownArgumentType]
        if raw.get("join") == "all" and few:
            findings.add(
                ("join",),
                "waits for all of one task",
                "name two or more in 'from', or remove 'join'",
            )
        if isinstance(names, (list, tuple)):
            listed = cast("list[Any]", names)
            for index, name in enumerate(listed):
                if isinstance(name, str) and name in listed[:index]:
                    findings.add(("from", index), "is named twice", "keep one of the two")


_RATE_FORM = "a number and a time such as 60/m or 10/30s, or {limit, per, burst, by}"


def _per(value: Any) -> Any:
    """Read a bare unit as one of it."""
    return f"1{value}" if value in ("s", "m", "h", "d") else value


class RateLimit(Model):
    """How often a webhook may start its task: ``limit`` starts in ``per`` seconds.

    ``burst`` is how many may come at once; ``limit`` when unsaid. ``by``: counted for the task as
    a whole, or for each sender's address.
    """

    limit: Positive
    per: Annotated[PositiveDuration, BeforeValidator(_per)] = 60.0
    burst: Positive | None = None
    by: Literal["task", "client"] = "task"

    @property
    def capacity(self) -> int:
        """How many may come at once."""
        return self.burst or self.limit


def _rate_limit(value: Any) -> Any:
    if not isinstance(value, str):
        if value is None or isinstance(value, RateLimit | Mapping):
            return cast("Any", value)
        fail(f"must be {_RATE_FORM}, found {describe(value, ('rate_limit',))}")
    number, slash, per = value.partition("/")
    if not slash or not number.strip().isascii() or not number.strip().isdigit():
        fail(f"must be {_RATE_FORM}", "write 60/m")
    if len(number) > 9:
        fail("is more than a limit")
    return {"limit": int(number), "per": per.strip()}


def _webhook_secret(value: Any) -> Any:
    if value is None or isinstance(value, SecretRef):
        return value
    if isinstance(value, Mapping):
        return SecretRef.model_validate(value)
    if not isinstance(value, str):
        fail(
            f"must be text or {{secret: key}}, found {describe(value, ('webhook_secret',))}",
            'write "${VARIABLE}" or {secret: key}',
        )
    if not value.strip():
        fail("is empty", 'write "${VARIABLE}" or {secret: key}')
    return value


class TriggerSpec(Model):
    """What starts the task: exactly one of the first five is set."""

    cron: Cron | None = None
    webhook: HookPath | None = None
    manual: Flag | None = None
    chain: ChainTrigger | None = None
    daemon: Flag | None = None

    timezone: Timezone | None = None
    catchup: Literal["skip", "one", "all"] = "one"
    jitter: Duration | None = None
    """Seconds."""

    webhook_secret: Annotated[str | SecretRef | None, BeforeValidator(_webhook_secret)] = None
    auth: Flag = False
    methods: Annotated[tuple[Literal["GET", "POST", "PUT", "PATCH", "DELETE"], ...], *SOME] = (
        "POST",
    )
    mode: Literal["sync", "async"] = "sync"
    rate_limit: Annotated[RateLimit | None, BeforeValidator(_rate_limit)] = None

    restart: Literal["always", "on-failure", "never"] = "always"

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want exactly one trigger, and no option of another."""
        kinds = kinds_of(raw)
        if len(kinds) != 1:
            named = ", ".join(kinds) if kinds else "none"
            hint = f"keep one of: {named}" if kinds else f"add one of: {', '.join(KINDS)}"
            findings.add((), f"needs exactly one trigger, found {named}", hint)
            return
        for option, owner in OPTIONS.items():
            if option in raw and owner not in kinds:
                findings.add(
                    (option,),
                    f"belongs to a {owner} trigger, but this task has {kinds[0]}",
                    f"remove '{option}' or the trigger",
                )

    @property
    def kind(self) -> str:
        """``cron`` ``webhook`` ``manual`` ``chain`` or ``daemon``."""
        for name in ("cron", "webhook", "chain", "daemon"):
            if getattr(self, name):
                return name
        return "manual"


def kinds_of(raw: Raw) -> list[str]:
    """Give the kinds of trigger a raw map declares, in order; null and false declare nothing."""
    return [kind for kind in KINDS if raw.get(kind) is not None and raw.get(kind) is not False]
