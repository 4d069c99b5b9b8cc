"""``dicode answer``: answer what a run asks, by arguments or by being asked."""

from __future__ import annotations

import argparse
from typing import Any, cast

from dicode_mcp.cli import failures
from dicode_mcp.cli.asking import somebody_there
from dicode_mcp.cli.client import Client
from dicode_mcp.cli.commands.run import follow_to_end
from dicode_mcp.cli.commands.runs import GOOD, headline, show_end
from dicode_mcp.cli.forms import Question, prompt
from dicode_mcp.cli.session import Session
from dicode_mcp.runs.question_values import fields_of, from_texts


def answer(session: Session, args: argparse.Namespace) -> int:
    """Answer or decline a run's question; with ``--follow`` show how the run goes on."""
    if args.decline and args.params:
        raise failures.usage("give an answer or --decline, not both")
    with session.connect() as client:
        arguments: dict[str, Any] = {"run_id": args.run, "wait_seconds": 0}
        if args.decline:
            arguments["decline"] = True
            if args.question is not None:
                arguments["question"] = args.question
        else:
            arguments |= _answered(session, client, args)
        run = client.call("answer_run", arguments)
        if args.follow:
            run = follow_to_end(session.terminal, client, args.run, None)
    if session.as_json:
        session.terminal.show_json(run)
    elif args.follow:
        show_end(session.terminal, run, with_logs=False)
    else:
        session.terminal.note(headline(session.terminal, run))
    failed = args.follow and run.get("status") not in GOOD
    return failures.FAILED if failed else failures.OK


def _answered(session: Session, client: Client, args: argparse.Namespace) -> dict[str, Any]:
    """Read the answer from the arguments, or ask for it; gives answer and question."""
    run = client.call("get_run", {"run_id": args.run})
    question = cast("dict[str, Any]", run.get("question") or {})
    number = args.question or question.get("number")
    given = {} if number is None else {"question": number}
    if not question:
        # The server says why there is nothing to answer.
        return given | {"answer": {}}
    if args.params:
        return given | {"answer": _read(args.params, question)}
    if not somebody_there():
        names = ", ".join(f"{name}=…" for name in fields_of(question["schema"]))
        raise failures.usage(
            f"nobody is at this terminal to be asked: {question['message']}",
            f"dicode answer {args.run} {names}, or --decline",
        )
    typed = prompt(session.terminal, question)
    if typed is None:
        raise failures.usage("no answer was given; the question stays open")
    return given | {"answer": typed}


def _read(words: list[str], question: Question) -> dict[str, Any]:
    """Read ``k=v`` by the question's own types; a question with one field also takes its value."""
    fields = fields_of(question["schema"])
    if len(words) == 1 and len(fields) == 1 and words[0].partition("=")[0] not in fields:
        words = [f"{next(iter(fields))}={words[0]}"]
    texts: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise failures.usage(
                "an answer is written as k=v",
                f"fields: {', '.join(fields)}; quote values that hold spaces",
            )
        texts[name] = value
    return from_texts(question["schema"], texts)
