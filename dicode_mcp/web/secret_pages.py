"""The page on which a user types a secret that an agent asked for: a plain form, without script.

Nothing that was typed is ever shown again. Whether an invitation holds is the service's affair.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.secrets.vault import MAX_VALUE
from dicode_mcp.service import Principal
from dicode_mcp.service.invitations import PAGE, Invitation, Invitations
from dicode_mcp.web.api_parts import principal_of
from dicode_mcp.web.frame import page, sentence
from dicode_mcp.web.markup import Html, join, tag
from dicode_mcp.web.sessions import session_of

MAX_BODY = 4 * MAX_VALUE
_FORM = "application/x-www-form-urlencoded"
_LINE, _TEXT = "line", "text"
# With the other pages' no-referrer a browser would call the form's origin null.
_OWN_REFERRER = {"referrer-policy": "same-origin"}


class SecretPages:
    """The handlers of ``/secrets/set/TICKET``."""

    def __init__(self, invitations: Invitations) -> None:
        self._invitations = invitations

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``."""
        path = f"{PAGE}{{ticket}}"
        return [
            Route(path, self._show, methods=["GET"]),
            Route(path, self._take, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        return _form(self._invitations.open(_human(request), request.path_params["ticket"]))

    async def _take(self, request: Request) -> Response:
        reader, ticket = _human(request), request.path_params["ticket"]
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise DicodeError(
                Code.FORBIDDEN, "this form was sent from a page that is not this server's"
            )
        invitation = self._invitations.open(reader, ticket)
        try:
            name = await self._invitations.take(reader, ticket, await _typed(request))
        except DicodeError as error:
            if error.code not in (Code.INVALID_ARGUMENT, Code.TOO_LARGE):
                raise
            return _form(invitation, error.message)
        return _answer(
            f"{name} is set",
            tag("h1", f"{name} is set"),
            tag("p", "The value is kept sealed and shown to nobody. You may close this page."),
        )


def _human(request: Request) -> Principal:
    """Give the owner, or who has a session; a key sets secrets with the tool or over REST."""
    known: object = getattr(request.state, "principal", None)
    by_key = isinstance(known, Principal) and known.credential and not session_of(request.scope)
    if by_key or "authorization" in request.headers:
        raise DicodeError(
            Code.FORBIDDEN,
            "this page is for people",
            hint="with a key, send the value: PUT /api/secrets/NAME",
        )
    return principal_of(request)


async def _typed(request: Request) -> str:
    """Give what was typed into one of the two fields."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise DicodeError(
            Code.INVALID_ARGUMENT, "the body is not a form", hint=f"send Content-Type: {_FORM}"
        )
    body = await request.body()
    if len(body) > MAX_BODY:
        raise DicodeError(Code.TOO_LARGE, f"the secret's value is over {MAX_VALUE} bytes")
    try:
        fields = dict(
            parse_qsl(
                body.decode("ascii"), keep_blank_values=True, max_num_fields=4, errors="strict"
            )
        )
    except ValueError:
        raise DicodeError(Code.INVALID_ARGUMENT, "the form cannot be read") from None
    # Browsers send line ends of a text area as CR LF.
    given = [fields.get(_LINE, ""), fields.get(_TEXT, "").replace("\r\n", "\n")]
    if all(given):
        raise DicodeError(Code.INVALID_ARGUMENT, "both fields are filled in; use one of them")
    return given[0] or given[1]


def _form(invitation: Invitation, fault: str | None = None) -> Response:
    name, asker = invitation.name, invitation.asker.actor
    body = join(
        tag("h1", f"Set the secret {name}"),
        tag("p", f"Asked for by {asker}. The agent is not shown what you type."),
        tag("p", sentence(fault), class_="hint", role="alert") if fault else None,
        tag(
            "form",
            _field("Value", tag("input", id=_LINE, name=_LINE, type="password", **_PRIVATE)),
            _field(
                "or several lines, as of a key file",
                tag("textarea", id=_TEXT, name=_TEXT, rows=4, **_PRIVATE),
            ),
            tag("p", tag("button", "Set the secret", type="submit")),
            method="post",
            action=f"{PAGE}{invitation.ticket}",
        ),
    )
    return _answer(f"set {name}", body, status=422 if fault else 200)


_PRIVATE = {"autocomplete": "off", "spellcheck": "false"}


def _field(label: str, control: Html) -> Html:
    return tag("p", tag("label", label, " ", control))


def _answer(title: str, *body: Html, status: int = 200) -> Response:
    answer = page(title, *body, status=status)
    answer.headers.update(_OWN_REFERRER)
    return answer
