"""Questions to a client: which answers fit, what travels between rounds, who can be asked."""

from __future__ import annotations

import json
from typing import Any

import mcp_types as t
import pytest

from dicode_mcp.tools.questions import Rounds, fitting, form, incapable, offers

NAME = form("Who?", {"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]})
ROOTS = t.ListRootsRequest()
ACCEPTED: dict[str, Any] = {"action": "accept", "content": {"n": "Ann"}}


def repeated(state: str | None, **answers: Any) -> t.InputResponseRequestParams:
    """Make the params of a call that is made again."""
    responses: t.InputResponses = {
        name: t.ElicitResult.model_validate(reply) for name, reply in answers.items()
    }
    return t.InputResponseRequestParams(request_state=state, input_responses=responses or None)


@pytest.mark.parametrize(
    ("heard", "fits"),
    [
        (ACCEPTED, True),
        ({"action": "decline"}, True),
        ({"action": "cancel", "content": None}, True),
        ({"action": "accept", "content": {"n": 5}}, False),
        ({"action": "accept", "content": {}}, False),
        ({"action": "accept"}, False),
        ({"action": "perhaps"}, False),
        ({"roots": []}, False),
        (12345, False),
        (None, False),
    ],
)
def test_only_an_answer_that_fits_its_form_counts(heard: Any, fits: bool) -> None:
    assert (fitting(NAME, heard) is not None) is fits


def test_an_answer_of_another_kind_of_question_does_not_fit() -> None:
    assert fitting(ROOTS, ACCEPTED) is None
    assert fitting(ROOTS, {"roots": [{"uri": "file:///a"}]}) is not None


def test_answers_of_earlier_rounds_travel_in_the_state() -> None:
    first = Rounds.read(repeated(None))
    assert first.replies({"a": NAME}) == {}
    asked = first.next({"a": NAME})
    second = Rounds.read(repeated(asked.request_state, a=ACCEPTED))
    assert set(second.replies({"a": NAME, "b": NAME})) == {"a"}
    asked = second.next({"b": NAME})
    assert set(asked.input_requests or {}) == {"b"}
    third = Rounds.read(repeated(asked.request_state, b=ACCEPTED))
    assert set(third.replies({"a": NAME, "b": NAME})) == {"a", "b"}


def test_answers_to_what_nobody_asked_are_passed_over() -> None:
    rounds = Rounds.read(repeated(None, a=ACCEPTED, other=ACCEPTED))
    assert set(rounds.replies({"a": NAME})) == {"a"}


def test_an_answer_that_does_not_fit_is_asked_for_again_and_forgotten() -> None:
    wrong: dict[str, Any] = {"action": "accept", "content": {"n": 5}}
    rounds = Rounds.read(repeated(None, a=wrong))
    assert rounds.replies({"a": NAME}) == {}
    assert json.loads(rounds.next({"a": NAME}).request_state or "") == {}


def test_a_client_is_asked_only_what_it_declared() -> None:
    nothing = t.ClientCapabilities()
    forms = t.ClientCapabilities(elicitation=t.ElicitationCapability())
    urls = t.ClientCapabilities(
        elicitation=t.ElicitationCapability(url=t.UrlElicitationCapability())
    )
    roots = t.ClientCapabilities(roots=t.RootsCapability())
    assert not offers(nothing, NAME)
    assert offers(forms, NAME)
    assert not offers(urls, NAME)
    assert not offers(forms, ROOTS)
    assert offers(roots, ROOTS)


def test_the_refusal_names_what_would_have_to_be_declared() -> None:
    error = incapable([NAME, ROOTS])
    assert error.code == -32021
    assert error.data == {"requiredCapabilities": {"elicitation": {}, "roots": {}}}
