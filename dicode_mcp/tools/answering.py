"""The tool that answers what a run asks; without an answer the user is asked for one."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.views import question_view
from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.asking import ELICITED, RUN, content_of, put_as, waited
from dicode_mcp.tools.registry import Answer, Call, ToolDef
from dicode_mcp.tools.sizes import fit_run

DEFAULT_WAIT_S = 30
MAX_WAIT_S = 55


async def answer_run(call: Call, args: dict[str, Any]) -> Answer:
    """Answer a run's question, or have the user answer it, and wait for what comes next."""
    run_id, decline = args["run_id"], args.get("decline", False)
    if decline and "answer" in args:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "answer_run: give 'answer' or 'decline', not both",
            hint="decline true tells the task that the user would not answer",
        )
    # Kept by a later question of the same call: then the one it was made for is answered.
    if call.client.recall(RUN) is None:
        if decline or "answer" in args:
            await call.services.questions.answer(
                call.principal,
                run_id,
                args.get("answer"),
                number=args.get("question"),
                decline=decline,
            )
        else:
            await _ask(call, run_id, args.get("question"))
    run = await call.services.runs.get(call.principal, run_id)
    return fit_run(await waited(call, run, args.get("wait_seconds", DEFAULT_WAIT_S)))


async def _ask(call: Call, run_id: str, number: int | None) -> None:
    run, question = await call.services.questions.wanted(call.principal, run_id, number)
    view = question_view(question)
    name, asked = put_as({"run_id": run.id, "task": run.task_id}, view)
    if not call.client.can(asked):
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "answer_run: the answer is missing, and this client cannot ask its user",
            hint="ask the user yourself, then call again with answer (an object after"
            " data.question.schema), or with decline true",
            data={"question": view},
        )
    reply = (await call.client.ask({name: asked}))[name]
    declined = isinstance(reply, t.ElicitResult) and reply.action == "decline"
    content = content_of(reply)
    if content is None and not declined:
        raise DicodeError(
            Code.CONFLICT,
            f"the user put question {question.n} of run {run_id} away; it stays open",
            hint="ask again later, or call answer_run with decline true to refuse it",
        )
    await call.services.questions.answer(
        call.principal, run_id, content, number=question.n, decline=declined, channel=ELICITED
    )


TOOLS = (
    ToolDef(
        name="answer_run",
        title="Answer a run",
        description=(
            "Answer the question of a run whose status is waiting (get_run shows it under "
            "question). It is put to the user: never make an answer up. Without answer your "
            "client asks the user, if it can. decline tells the task that the user refuses. Each "
            "question takes one answer; a later one is told who was first. Returns the run when "
            "it has ended or asks again, or after wait_seconds."
        ),
        input_schema=s.arguments(
            {
                "run_id": s.RUN_ID,
                "answer": {
                    "description": 'After question.schema, e.g. {"deploy": true}; a question'
                    " with one field also takes its value alone."
                },
                "decline": s.flag("Refuse to answer.", False),
                "question": s.whole(
                    "question.number that was seen; needed from the second question on.", 1, 1000
                ),
                "wait_seconds": s.whole(
                    "How long to wait for what comes next.", 0, MAX_WAIT_S, DEFAULT_WAIT_S
                ),
            },
            "run_id",
        ),
        output_schema=s.SAME_RUN,
        annotations=t.ToolAnnotations(
            title="Answer a run",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=False,
            open_world_hint=True,
        ),
        toolset="runs",
        verb="run",
        handler=answer_run,
    ),
)
