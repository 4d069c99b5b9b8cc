"""Requests to webhooks: whether a message is believed, and the run it starts.

A stranger may call; the message proves itself, unless its task declares neither a secret nor
``auth``. What a request looks like on the wire, and what its answer does, is the surface's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import Store
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Registry
from dicode_mcp.runs.model import Run, RunRequest, Trigger
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal
from dicode_mcp.spec.model import Task
from dicode_mcp.triggers.webhook import bodies, request, signatures
from dicode_mcp.triggers.webhook.keys import HookKeys
from dicode_mcp.triggers.webhook.rate import RateLimits
from dicode_mcp.triggers.webhook.request import Call
from dicode_mcp.triggers.webhook.signatures import Claims, Refused, Seal, Verdict
from dicode_mcp.triggers.webhook.table import HookTable, Match

log = logging.getLogger("dicode.hooks")

MAX_WAIT_S = 50.0
"""How long an answer is held back for a run's end: below the 60 s after which proxies give up."""

_ACTOR = Principal("webhook", "http", verbs=frozenset())
_ACTION = "webhook"
_REST_S = 60.0
_MAX_KEY = 256


class HooksService:
    """Takes messages to webhooks."""

    def __init__(
        self,
        *,
        queue: Queue,
        registry: Registry,
        store: Store,
        audit: Audit,
        clock: Clock,
        keys: HookKeys,
    ) -> None:
        self._queue = queue
        self._registry = registry
        self._store = store
        self._audit = audit
        self._clock = clock
        self._keys = keys
        self._table = HookTable(registry, keys)
        self._rates = RateLimits(clock)
        self._noted_at: dict[str, float] = {}

    def find(self, path: str) -> Match:
        """Give the webhook of a decoded path. Raises NOT_FOUND; SHUTTING_DOWN at the start."""
        found = self._table.find(path)
        if found is None and self._registry.starting:
            raise DicodeError(
                Code.SHUTTING_DOWN,
                "the server has not read all its sources yet",
                hint="send it again in a moment",
                retry=Retry.BACKOFF,
            )
        if found is None:
            raise DicodeError(
                Code.NOT_FOUND,
                "no webhook is at this path",
                hint="trigger.webhook of a task names its path; list_tasks shows what is in force",
            )
        return found

    def admit(self, match: Match, call: Call, caller: Principal | None) -> Claims | None:
        """Judge a request by all but its body; gives what its signatures claim, if it needs one.

        Raises TASK_NOT_READY for a webhook that is not served, UNAUTHENTICATED, FORBIDDEN,
        INVALID_ARGUMENT for a query, NOT_SUPPORTED for a body's type.
        """
        require_served(match)
        require_caller(match.task, caller, "run")
        claims = self._claims(match.task, call)
        _read_query(call)
        _content_type(call)
        return claims

    async def start(self, call: Call, body: bytes, caller: Principal | None) -> Run:
        """Commit the run of a message; of one that was taken before, give the run it had.

        Raises what ``find`` and ``admit`` do, and CONFLICT for a replay, RATE_LIMITED with
        ``retry_after_s`` in its data, INVALID_ARGUMENT for a body, what ``Queue.submit`` raises;
        nothing was started then.
        """
        # Found and judged again: while the body came, another version may have come in force.
        match = self.find(call.path)
        claims = self.admit(match, call, caller)
        seals = self._proven(match.task, call, claims, body)
        self._require_rate(match.task, call)
        wish = _request(match.task, call, body, caller)
        keys = [signatures.seen_key(match.task.id, seal) for seal in seals]
        await self._claim(match.task, keys, seals)
        try:
            return await self._submit(match, call, wish)
        except DicodeError:
            # The sender may well send the same bytes again.
            with suppress(DicodeError):
                if keys:
                    await self._store.release_signatures(keys)
            raise

    async def wait(self, run_id: str) -> Run:
        """Give a run once it has ended or asks a human, or as it is after ``MAX_WAIT_S``.

        Of a run that is tried again, the last attempt that begins in that time.
        """
        return await self._queue.wait_series(run_id, MAX_WAIT_S, question_after=0)

    async def _submit(self, match: Match, call: Call, wish: RunRequest) -> Run:
        now = self._table.find(call.path)
        if now is None or now.task is not match.task:
            raise _not_served("its task is being replaced")
        try:
            return await self._queue.submit(wish)
        except DicodeError as error:
            # A stranger is not told who paused it, and why.
            if error.code is Code.TASK_PAUSED:
                raise _not_served("its task is paused") from error
            if error.code in (Code.TASK_NOT_READY, Code.TASK_NOT_FOUND):
                raise _not_served("its task is not in force") from error
            raise

    def _claims(self, task: Task, call: Call) -> Claims | None:
        if task.spec.trigger.webhook_secret is None:
            return None
        secret = self._keys.of(task)
        if secret is None:
            raise _not_served("its secret is not set")
        try:
            return signatures.claimed(secret, call.headers, self._clock.now_ms() / 1000)
        except Refused as refused:
            raise self._refusal(task, call, refused) from None

    def _proven(
        self, task: Task, call: Call, claims: Claims | None, body: bytes
    ) -> tuple[Seal, ...]:
        if claims is None:
            return ()
        try:
            return claims.proven(body)
        except Refused as refused:
            raise self._refusal(task, call, refused) from None

    def _refusal(self, task: Task, call: Call, refused: Refused) -> DicodeError:
        self._note(task, refused.verdict.value, call.client)
        if refused.verdict is Verdict.MISSING:
            return DicodeError(
                Code.UNAUTHENTICATED,
                f"the message is not signed: {refused.why}",
                hint="set the task's webhook_secret where the message is sent from",
            )
        stale = refused.verdict is Verdict.STALE
        return DicodeError(
            Code.FORBIDDEN,
            f"the message is {'stale' if stale else 'not believed'}: {refused.why}",
            hint="sign it anew when it is sent"
            if stale
            else "use the task's webhook_secret, over the raw bytes of the body",
        )

    def _note(self, task: Task, outcome: str, client: str | None) -> None:
        """Note a refusal, but not each of a flood: anybody may send one."""
        now = self._clock.monotonic()
        if now - self._noted_at.get(task.id, -_REST_S) < _REST_S:
            return
        self._noted_at[task.id] = now
        self._audit.note(_ACTOR, _ACTION, task.id, outcome)
        facts = {"task_id": task.id, "why": outcome, "client": client}
        log.warning("a message to a webhook was refused", extra=facts)

    def _require_rate(self, task: Task, call: Call) -> None:
        limit = task.spec.trigger.rate_limit
        seconds = self._rates.take(task.id, limit, call.client) if limit else None
        if seconds is not None:
            raise DicodeError(
                Code.RATE_LIMITED,
                "this webhook has started its task as often as its rate_limit allows",
                hint=f"send it again in {seconds} s",
                data={"retry_after_s": seconds},
                retry=Retry.BACKOFF,
            )

    async def _claim(self, task: Task, keys: Sequence[str], seals: Sequence[Seal]) -> None:
        if not keys:
            return
        # A second more than it would be taken for, so that none is forgotten too early.
        last = max(seal.time_s for seal in seals) + signatures.TOLERANCE_S + 1
        now_ms = self._clock.now_ms()
        if await self._store.claim_signatures(keys, now_ms=now_ms, expires_ms=last * 1000):
            return
        self._note(task, "replayed", None)
        raise DicodeError(
            Code.CONFLICT,
            "this very message was taken before: its signature and time are known",
            hint="a message that is sent again is signed again, with the time of then",
        )


def require_served(match: Match) -> None:
    """Raise TASK_NOT_READY for a webhook whose declared secret is not there."""
    if not match.served:
        raise _not_served("its secret is not set")


def require_caller(task: Task, caller: Principal | None, verb: str) -> None:
    """Let only a session or a key do ``verb`` on a task that declares ``auth``.

    The server's own user needs one too: another site's page can send his browser here. Raises
    UNAUTHENTICATED, and FORBIDDEN for a key that is not for this task.
    """
    if not task.spec.trigger.auth:
        return
    if caller is None or caller.credential is None:
        raise DicodeError(
            Code.UNAUTHENTICATED,
            "this webhook wants a session or a key",
            hint="send Authorization: Bearer KEY; dicode keys create makes a key with the scope"
            f" {verb}:{task.id}",
        )
    if not caller.allows(verb, task.id):
        raise DicodeError(
            Code.FORBIDDEN,
            f"not allowed: this webhook wants a key with the scope '{verb}' on its task",
            hint="ask the server's owner for one",
        )


def wants_no_result(match: Match, call: Call) -> bool:
    """Tell whether a request is answered before its run has ended."""
    if match.task.spec.trigger.mode == "async":
        return True
    return _read_query(call).get("wait") in ("false", "0", "no")


def _request(task: Task, call: Call, body: bytes, caller: Principal | None) -> RunRequest:
    query = _read_query(call)
    try:
        value = bodies.read_body(_content_type(call), body)
    except bodies.Unreadable as error:
        raise DicodeError(
            Code.INVALID_ARGUMENT, error.why, hint="send a body that fits its Content-Type"
        ) from None
    named = request.delivery(call.headers)
    if named is not None and named.kind == "key" and len(named.id) > _MAX_KEY:
        raise DicodeError(
            Code.INVALID_ARGUMENT, f"Idempotency-Key is longer than {_MAX_KEY} characters"
        )
    return RunRequest(
        task_id=task.id,
        trigger=Trigger.WEBHOOK,
        # The body comes before the query where both name a parameter.
        params={name: text for name, text in query.items() if not _has(value, name)},
        input=value,
        request=request.shown(call, query),
        actor=caller.actor if caller and task.spec.trigger.auth else _ACTOR.actor,
        strict_params=False,
        idempotency_key=named.key(body) if named else None,
    )


def _has(value: Any, name: str) -> bool:
    return isinstance(value, dict) and name in value


def _read_query(call: Call) -> dict[str, Any]:
    try:
        return dict(bodies.read_query(call.query))
    except bodies.Unreadable as error:
        raise DicodeError(Code.INVALID_ARGUMENT, error.why) from None


def _content_type(call: Call) -> bodies.ContentType:
    try:
        return bodies.content_type(call.headers)
    except bodies.Unsupported as error:
        raise DicodeError(
            Code.NOT_SUPPORTED,
            error.why,
            hint="send application/json, a form, text/plain or application/octet-stream",
        ) from None


def _not_served(why: str) -> DicodeError:
    return DicodeError(
        Code.TASK_NOT_READY,
        f"this webhook is not served now: {why}",
        hint="the task's conditions (get_task) say what to do; then send it again",
        retry=Retry.AFTER,
    )
