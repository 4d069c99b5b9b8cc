"""The page on which the owner answers what a run asks: a plain form, without script.

It holds the tokens of the forms it has shown; which answer fits, and that one counts, is decided by
the service.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from datetime import tzinfo

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.question_values import from_texts
from dicode_mcp.service import Principal, Services
from dicode_mcp.service.views import question_view
from dicode_mcp.web.forms import OWN_REFERRER, human_of, read_form, require_own_page
from dicode_mcp.web.frame import page, sentence
from dicode_mcp.web.page_parts import Moments, View
from dicode_mcp.web.page_questions import NUMBER, TOKEN, VERDICT, answer_body

MAX_BODY = 512 * 1024


class FormTokens:
    """Single-use proofs that a form is one that was shown here, to its reader."""

    def __init__(self, clock: Clock, *, lasts_s: float = 24 * 3600, most: int = 1_000) -> None:
        self._clock = clock
        self._lasts_s = lasts_s
        self._most = most
        self._given: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def give(self, purpose: str) -> str:
        """Make a token for one purpose; the oldest goes when there are too many."""
        token = secrets.token_urlsafe(32)
        self._given[token] = (purpose, self._clock.monotonic() + self._lasts_s)
        if len(self._given) > self._most:
            self._given.popitem(last=False)
        return token

    def take(self, token: str, purpose: str) -> bool:
        """Use a token up; tells whether it was good for the purpose."""
        found = self._given.pop(token, None)
        return found is not None and found[0] == purpose and self._clock.monotonic() < found[1]


class AnswerPages:
    """The handlers of ``/runs/{id}/answer``."""

    def __init__(self, services: Services, clock: Clock, zone: tzinfo | None = None) -> None:
        self._services = services
        self._clock = clock
        self._zone = zone
        self._tokens = FormTokens(clock)

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``."""
        return [
            Route("/runs/{id}/answer", self._show, methods=["GET"]),
            Route("/runs/{id}/answer", self._answer, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        owner = _owner(request)
        return self._form(owner, await self._view(owner, request.path_params["id"]))

    async def _answer(self, request: Request) -> Response:
        owner, run_id = _owner(request), request.path_params["id"]
        require_own_page(request)
        typed = await read_form(request, MAX_BODY)
        token, number = typed.pop(TOKEN, ""), typed.pop(NUMBER, "")
        decline = typed.pop(VERDICT, "") == "decline"
        if not self._tokens.take(token, _purpose(owner, run_id, number)):
            view = await self._view(owner, run_id)
            return self._form(
                owner, view, typed, "This form was used or is too old. Here is a new one", 403
            )
        view = await self._view(owner, run_id, int(number))
        given = None if decline else from_texts(view["question"]["schema"], typed)
        try:
            await self._services.questions.answer(
                owner, run_id, given, number=int(number), decline=decline
            )
        except DicodeError as error:
            if error.code is not Code.INVALID_PARAMS:
                raise
            return self._form(owner, view, typed, error.message, 422)
        return RedirectResponse(f"/runs/{run_id}", 303)

    async def _view(self, owner: Principal, run_id: str, number: int | None = None) -> View:
        """Give what the page shows of the run and the question that is open, of any number."""
        if number is None:
            shown = await self._services.runs.get(owner, run_id)
            number = shown["question"]["number"] if "question" in shown else None
        run, question = await self._services.questions.wanted(owner, run_id, number)
        return {"run_id": run.id, "task": run.task_id, "question": question_view(question)}

    def _form(
        self,
        owner: Principal,
        view: View,
        typed: dict[str, str] | None = None,
        fault: str | None = None,
        status: int = 200,
    ) -> Response:
        token = self._tokens.give(_purpose(owner, view["run_id"], view["question"]["number"]))
        moments = Moments(self._clock.now_ms(), self._zone)
        told = sentence(fault) if fault else None
        body = answer_body(view, token, moments, typed=typed, fault=told)
        answer = page(f"question: {view['task']}", body, status=status)
        answer.headers.update(OWN_REFERRER)
        return answer


def _owner(request: Request) -> Principal:
    return human_of(request).narrowed(surface="http")


def _purpose(owner: Principal, run_id: str, number: object) -> str:
    """Say what a form is for: one question, answered by the reader it was shown to."""
    return f"{owner.credential or ''} {run_id} {number}"
