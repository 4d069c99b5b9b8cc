"""The page to log in and out: plain forms, without script.

It says the same whether a passphrase is wrong or none is set; who may try when is the service's.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.sessions import Session, Sessions, form_fits, form_token
from dicode_mcp.web.forms import OWN_REFERRER, read_form, require_own_page
from dicode_mcp.web.frame import page, sentence
from dicode_mcp.web.markup import Html, join, tag
from dicode_mcp.web.sessions import (
    LOGIN_PATH,
    LOGOUT_PATH,
    cookie_of,
    may_log_in,
    put_cookie,
    session_of,
    wanted_page,
)
from dicode_mcp.web.typists import Typists

MAX_BODY = 16 * 1024
_FIELDS = 8
_NONCE = "dicode-login"
_LOGOUT = "logout"


class LoginPages:
    """The handlers of ``/login`` and ``/logout``."""

    def __init__(self, sessions: Sessions, typists: Typists | None = None) -> None:
        self._sessions = sessions
        self._typists = typists or Typists()
        self._form_key = secrets.token_bytes(32)

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``."""
        return [
            Route(LOGIN_PATH, self._show, methods=["GET"]),
            Route(LOGIN_PATH, self._login, methods=["POST"]),
            Route(LOGOUT_PATH, self._logout, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        session = session_of(request.scope)
        following = wanted_page(request.query_params.get("next"))
        return _logged_in(session) if session else self._form(request, following)

    async def _login(self, request: Request) -> Response:
        require_own_page(request)
        if not may_log_in(request.scope):
            raise _UNSAFE
        typed = await read_form(request, MAX_BODY, _FIELDS)
        following = wanted_page(typed.get("next"))
        if not self._is_ours(request, typed.get("token", "")):
            return self._form(request, following, "This form is too old. Here is a new one", 403)
        before = session_of(request.scope)
        peer = self._typists.of(request.scope)
        try:
            token = await self._sessions.login(typed.get("passphrase", ""), peer, before)
        except DicodeError as error:
            return self._refused(request, following, error)
        answer = RedirectResponse(following, 303, {"cache-control": "no-store"})
        put_cookie(answer, request.scope, token)
        put_cookie(answer, request.scope, "", _NONCE)
        return answer

    async def _logout(self, request: Request) -> Response:
        require_own_page(request)
        session = session_of(request.scope)
        if session is not None:
            typed = await read_form(request, MAX_BODY, _FIELDS)
            if not form_fits(session, _LOGOUT, typed.get("token", "")):
                return _logged_in(session, status=403)
            self._sessions.logout(session)
        answer = RedirectResponse(LOGIN_PATH, 303, {"cache-control": "no-store"})
        put_cookie(answer, request.scope, "")
        return answer

    def _refused(self, request: Request, following: str, error: DicodeError) -> Response:
        if error.code is Code.UNAUTHENTICATED:
            return self._form(request, following, error.message, 403)
        if error.code is Code.RATE_LIMITED:
            answer = self._form(request, following, f"{error.message}; {error.hint}", 429)
            answer.headers["retry-after"] = str(error.data.get("retry_after_s", 1))
            return answer
        raise error

    # ── The form, and the proof that it is ours ──

    def _form(
        self, request: Request, following: str, fault: str | None = None, status: int = 200
    ) -> Response:
        nonce = cookie_of(request.scope, _NONCE) or secrets.token_urlsafe(24)
        body = _body(self._proof(nonce), following, fault, may_log_in(request.scope))
        answer = page("Log in", body, status=status)
        answer.headers.update(OWN_REFERRER)
        put_cookie(answer, request.scope, nonce, _NONCE)
        return answer

    def _is_ours(self, request: Request, token: str) -> bool:
        nonce = cookie_of(request.scope, _NONCE)
        given = token.encode("utf-8", "replace")
        return nonce is not None and hmac.compare_digest(self._proof(nonce).encode(), given)

    def _proof(self, nonce: str) -> str:
        words = nonce.encode("utf-8", "replace")
        return hmac.new(self._form_key, words, hashlib.sha256).hexdigest()


_UNSAFE = DicodeError(
    Code.FORBIDDEN,
    "a passphrase is not taken over an unencrypted connection",
    hint="open the page with https (server.public_url names its address), or on the server's own"
    " machine at http://localhost",
)


def _body(token: str, following: str, fault: str | None, safe: bool) -> Html:
    if not safe:
        told = f"{sentence(_UNSAFE.message)} {sentence(_UNSAFE.hint or '')}"
        return join(tag("h1", "Log in"), tag("p", told, class_="alarm", role="alert"))
    return join(
        tag("h1", "Log in"),
        tag("p", sentence(fault), class_="alarm", role="alert") if fault else None,
        tag(
            "form",
            tag("input", type="hidden", name="token", value=token),
            tag("input", type="hidden", name="next", value=following),
            tag(
                "p",
                tag("label", "Passphrase", for_="passphrase"),
                " ",
                tag(
                    "input",
                    id="passphrase",
                    name="passphrase",
                    type="password",
                    autocomplete="current-password",
                    required=True,
                    autofocus=True,
                ),
            ),
            tag("p", tag("button", "Log in", type="submit")),
            method="post",
            action=LOGIN_PATH,
        ),
        tag("p", "The owner sets it in a terminal: ", tag("code", _COMMAND), class_="hint"),
    )


_COMMAND = "dicode passphrase set"


def _logged_in(session: Session, status: int = 200) -> Response:
    body = join(
        tag("h1", "You are logged in"),
        tag("p", tag("a", "To the tasks", href="/")),
        tag(
            "form",
            tag("input", type="hidden", name="token", value=form_token(session, _LOGOUT)),
            tag("p", tag("button", "Log out", type="submit")),
            method="post",
            action=LOGOUT_PATH,
        ),
    )
    answer = page("Session", body, status=status)
    answer.headers.update(OWN_REFERRER)
    return answer
