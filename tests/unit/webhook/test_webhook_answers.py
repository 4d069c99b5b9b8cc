"""A run's end as an answer, and what no answer of a task may do."""

from __future__ import annotations

import pytest

from dicode_mcp.runs.model import Output, Run, RunStatus, Trigger
from dicode_mcp.web.hook_answers import STATUS, ended

FRAME = {"content-security-policy": "sandbox", "x-content-type-options": "nosniff"}


def run(output: Output | None = None, value: str | None = None) -> Run:
    return Run("r1", "t", RunStatus.SUCCESS, Trigger.WEBHOOK, 1, output=output, return_value=value)


@pytest.mark.parametrize(
    ("output", "kind", "body"),
    [
        (
            Output("html", "text/html; charset=utf-8", "<b>é</b>"),
            "text/html; charset=utf-8",
            "<b>é</b>",
        ),
        (Output("text", "text/plain", "hi"), "text/plain; charset=utf-8", "hi"),
        (Output("image", "image/svg+xml", "<svg/>"), "image/svg+xml", "<svg/>"),
        (Output("value", "application/json", '{"a":1}'), "application/json", '{"a":1}'),
        (Output("text", "text/plain\r\nset-cookie: a=b", "hi"), "application/octet-stream", "hi"),
        (Output("text", "nonsense", "hi"), "application/octet-stream", "hi"),
        (Output("text", "text/plain; x=ü", "hi"), "application/octet-stream", "hi"),
    ],
)
def test_an_output_is_answered_with_its_type_and_in_its_frame(
    output: Output, kind: str, body: str
) -> None:
    answer = ended(run(output, '"unused"'), FRAME)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert bytes(answer.body).decode() == body
    assert answer.headers["x-run-id"] == "r1"
    assert FRAME.items() <= dict(answer.headers).items()
    assert "set-cookie" not in answer.headers


def test_a_file_is_offered_under_its_name() -> None:
    answer = ended(run(Output("file", "text/csv", "AAE=", base64=True, name='ä "b".csv')), FRAME)
    assert answer.body == b"\0\1"
    named = answer.headers["content-disposition"]
    assert named == "attachment; filename*=UTF-8''%C3%A4%20%22b%22.csv"


def test_bytes_that_are_no_base64_are_given_as_they_are() -> None:
    assert ended(run(Output("image", "image/png", "é", base64=True)), FRAME).body == "é".encode()


def test_without_output_the_value_is_answered_as_it_was_written() -> None:
    answer = ended(run(value='{"a":  1.0}'), FRAME)
    assert (answer.body, answer.headers["content-type"]) == (b'{"a":  1.0}', "application/json")
    assert ended(run(), FRAME).body == b"null"


def test_every_end_has_a_status() -> None:
    assert set(STATUS) == {status for status in RunStatus if status.ended}
