"""Questions of runs on the page: the form to answer one, and what was asked before.

Words and markup only; what an answer may be is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dicode_mcp.runs.question_values import Field, choices_of, fields_of
from dicode_mcp.web.markup import Child, Html, join, tag
from dicode_mcp.web.page_parts import Column, Moments, View, link, section, table, task_link

TOKEN = ":token"
"""Name of the form's field that proves where it came from; no question's field has a colon."""
VERDICT = ":verdict"
NUMBER = ":question"
_LONG_TEXT = 200
_INPUTS = {"email": "email", "uri": "url", "date": "date", "date-time": "datetime-local"}


def question_note(run: View) -> Child:
    """Say on a run's page what it waits for, with the way to answer."""
    question = run.get("question")
    if not question:
        return None
    return tag(
        "section",
        tag("h2", "It asks"),
        tag("pre", question["message"], tabindex=0),
        tag("p", link("Answer", f"/runs/{run['run_id']}/answer")),
        class_="notice",
    )


def answers_section(run: View, moments: Moments) -> Child:
    """List what a run asked and who answered."""
    answers: Sequence[View] = run.get("answers", ())
    if not answers:
        return None
    columns = [Column("Question", "main"), Column("Answer", "main"), Column("By"), Column("When")]
    rows = [
        [
            answer["message"],
            "declined" if answer.get("declined") else _told(answer["answer"]),
            f"{answer['by']} via {answer['via']}",
            moments.near(answer["answered_at"]),
        ]
        for answer in answers
    ]
    return section("Answers", table("Answers", columns, rows))


def _told(answer: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {_word(value)}" for name, value in answer.items())


def _word(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def answer_body(
    run: View,
    token: str,
    moments: Moments,
    *,
    typed: Mapping[str, str] | None = None,
    fault: str | None = None,
) -> Html:
    """Write the page with the form; ``typed`` and ``fault`` are those of a try that did not fit."""
    question = run["question"]
    return join(
        tag("h1", "Question of ", task_link(run["task"])),
        tag("p", "Run ", link(run["run_id"], f"/runs/{run['run_id']}"), class_="quiet"),
        tag("p", fault, class_="alarm", role="alert") if fault else None,
        tag("pre", question["message"], tabindex=0),
        tag(
            "form",
            tag("input", type="hidden", name=TOKEN, value=token),
            tag("input", type="hidden", name=NUMBER, value=question["number"]),
            [
                _field(name, field, name in question["schema"].get("required", ()), typed)
                for name, field in fields_of(question["schema"]).items()
            ],
            tag("button", "Answer", type="submit", name=VERDICT, value="answer"),
            tag(
                "button",
                "Decline",
                type="submit",
                name=VERDICT,
                value="decline",
                formnovalidate=True,
            ),
            method="post",
            action=f"/runs/{run['run_id']}/answer",
            autocomplete="off",
            class_="answer",
        ),
        tag("p", "Open until ", moments.full(question["deadline"]), ".", class_="quiet"),
    )


def _field(name: str, field: Field, required: bool, typed: Mapping[str, str] | None) -> Html:
    value = typed.get(name, "") if typed is not None else _default(field)
    title = field.get("title") or name
    about = field.get("description")
    return tag(
        "label",
        tag("span", title, None if required else " (may be left empty)"),
        tag("span", about, class_="quiet") if about else None,
        _control(name, field, required, value),
    )


def _control(name: str, field: Field, required: bool, value: str) -> Html:
    kind, choices = field["type"], choices_of(field)
    if kind == "boolean":
        choices = [("true", "yes"), ("false", "no")]
    if choices is not None:
        options = [tag("option", "", value="", selected=value == "")]
        options += [
            tag("option", label, value=option, selected=value == option)
            for option, label in choices
        ]
        return tag("select", options, name=name, required=required)
    if kind in ("integer", "number"):
        return tag(
            "input",
            type="number",
            name=name,
            value=value,
            required=required,
            step=1 if kind == "integer" else "any",
            min=field.get("minimum"),
            max=field.get("maximum"),
        )
    return _text_control(name, field, required, value)


def _text_control(name: str, field: Field, required: bool, value: str) -> Html:
    lengths = {"minlength": field.get("minLength"), "maxlength": field.get("maxLength")}
    if "format" in field:
        kind = _INPUTS[field["format"]]
        return tag("input", type=kind, name=name, value=value, required=required)
    if field.get("maxLength", _LONG_TEXT + 1) > _LONG_TEXT:
        return tag("textarea", value, name=name, required=required, rows=3, **lengths)
    return tag("input", type="text", name=name, value=value, required=required, **lengths)


def _default(field: Field) -> str:
    value = field.get("default", "")
    return str(value).lower() if isinstance(value, bool) else str(value)
