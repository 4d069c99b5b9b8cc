"""Questions of runs, put to the user of a client: by ``answer_run``, and while a call waits.

Translates between a run's question and MCP's elicitation; who may answer, and that it is answered
once, is decided by the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import mcp_types as t

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.tools.progress import Teller
from dicode_mcp.tools.questions import Question, Reply, form
from dicode_mcp.tools.registry import Call

ELICITED = "elicitation"
"""The channel of an answer that the user of a client typed."""
RUN = "run"
"""Under which name a call keeps the run it has started."""


def put_as(run: Mapping[str, Any], question: Mapping[str, Any]) -> tuple[str, Question]:
    """Give a run's question as one to the user, and the name it has in the call."""
    schema = cast("Mapping[str, Any]", question["schema"])
    wire = {k: schema[k] for k in ("type", "properties", "required") if k in schema}
    message = f"Task {run['task']} asks: {question['message']}"
    return f"answer {run['run_id']} {question['number']}", form(message, wire)


def content_of(reply: Reply) -> dict[str, Any] | None:
    """Give what the user filled in; None when the form was declined or put away."""
    if not isinstance(reply, t.ElicitResult) or reply.action != "accept":
        return None
    return dict(cast("Mapping[str, Any]", reply.content or {}))


async def waited(
    call: Call, run: dict[str, Any], seconds: float, *, put: bool = True, series: bool = False
) -> dict[str, Any]:
    """Show a run once it has ended or asks something, or as it stands after ``seconds``.

    What it asks is ``put`` to the user where the client can, and the run goes on within the call;
    the time the user takes is not counted. Without an answer the question stays open. With
    ``series`` the attempts that follow a failed one are waited for too.
    """
    teller = Teller(call.report, call.clock, client=call.client)
    async with teller.beating():
        while seconds > 0 and not RunStatus(run["status"]).ended:
            name, question = put_as(run, run["question"]) if "question" in run else ("", None)
            if put and question is not None and _may_put(call, run, question):
                if not await _answered(call, run, name, question):
                    break
                run = await call.services.runs.get(call.principal, run["run_id"])
                continue
            asking, seen = run["run_id"], run["question"]["number"] if "question" in run else 0
            began = call.clock.monotonic()
            run = await call.services.runs.wait(
                call.principal,
                run["run_id"],
                seconds,
                teller.on_told,
                seen_questions=max(seen, len(run.get("answers", ()))),
                series=series,
            )
            seconds -= call.clock.monotonic() - began
            # Another attempt asks anew, from its first question on.
            new = "question" in run and (asking, seen) != (run["run_id"], run["question"]["number"])
            if new and not (put and _may_put(call, run, put_as(run, run["question"])[1])):
                break
    return run


def _may_put(call: Call, run: Mapping[str, Any], question: Question) -> bool:
    return call.client.can(question) and call.principal.allows("run", run["task"])


async def _answered(call: Call, run: Mapping[str, Any], name: str, question: Question) -> bool:
    """Put a question; tells whether it is settled, by this user or by somebody else meanwhile."""
    number = run["question"]["number"]
    reply = await _reply(call, run, name, question, number)
    if reply is None:
        return True
    content = content_of(reply)
    if content is None:
        return False
    try:
        await call.services.questions.answer(
            call.principal, run["run_id"], content, number=number, channel=ELICITED
        )
    except DicodeError as error:
        if error.code is Code.INVALID_PARAMS:
            return False
        if error.code is not Code.CONFLICT:
            raise
    return True


async def _reply(
    call: Call, run: Mapping[str, Any], name: str, question: Question, number: int
) -> Reply | None:
    """Give the user's reply; None when the question was answered elsewhere in the meantime."""
    # Not a TaskGroup: InputNeeded is to come out of it as it is.
    asking = asyncio.create_task(call.client.ask({name: question}, keep={RUN: run["run_id"]}))
    settling = asyncio.create_task(call.services.questions.settled(run["run_id"], number))
    try:
        await asyncio.wait({asking, settling}, return_when=asyncio.FIRST_COMPLETED)
        return (await asking)[name] if asking.done() else None
    finally:
        asking.cancel()
        settling.cancel()
        await asyncio.gather(asking, settling, return_exceptions=True)
