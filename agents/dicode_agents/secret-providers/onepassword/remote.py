"""What every provider needs: one GET with errors one can act on, and where each name is kept.

The same file lies beside each provider, so that each folder stands alone. No error shows a token, a
value, or an address beyond its host. What will not pass by itself is not tried again.
"""

import json
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from dicode_sdk import NoRetry

TIMEOUT_S = 20
MOST_READ = 4 * 1024 * 1024
AGAIN = frozenset({408, 425, 429, 472, 473})
"""The refusals that may pass; the last two are a Vault that stands by."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class UnavailableError(Exception):
    """The service gave no answer; it may later."""


class MisconfiguredError(NoRetry):
    """Something has to be set right first."""


def get(who, base, path, *, headers, plain=False, missing=None):
    """Read JSON from a service. ``missing`` are statuses that mean: nothing there (None).

    A token goes over TLS, or to this machine, unless ``plain`` allows it.
    """
    host = _require_safe(who, base, plain)
    request = urllib.request.Request(base.rstrip("/") + path, headers=dict(headers))
    request.add_header("User-Agent", "dicode-secrets")
    request.add_header("Accept", "application/json")
    try:
        with _opener().open(request, timeout=TIMEOUT_S) as answer:
            body = answer.read(MOST_READ + 1)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (missing or ()):
                return None
            raise _refused(who, error.code) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else ""
        raise UnavailableError(
            f"{who}: {host} cannot be reached: {why or type(reason).__name__}"
        ) from None
    return _parsed(who, body)


def places(text, names, default):
    """Give where each name is kept: what ``text`` says (``NAME=place``, by commas), or ``default``.

    ``default`` makes a place of a name.
    """
    told = {}
    for part in (part.strip() for part in text.replace("\n", ",").split(",")):
        name, equals, place = part.partition("=")
        if part and not (equals and name.strip() and place.strip()):
            raise MisconfiguredError("the parameter places is not NAME=place, NAME=place")
        if part:
            told[name.strip()] = place.strip()
    return {name: told.get(name) or default(name) for name in names}


def needed(params, name, example):
    """Give a parameter that has to be set."""
    value = params.get(name)
    if not value:
        raise MisconfiguredError(
            f"the parameter {name} is not set; give it in bundled.overrides, such as {example}"
        )
    return value


def asked(input):
    """Give the names a task asks for. Nobody else is answered."""
    names = input.get("names") if isinstance(input, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MisconfiguredError("a provider runs when a task's `from: task:` asks it, not by hand")
    return names


def text_of(value):
    """Give a value as the text an environment variable holds."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _refused(who, status):
    if status in (401, 403):
        return MisconfiguredError(f"{who} answered {status}: the token is wrong, old, or may not")
    if status >= 500 or status in AGAIN:
        return UnavailableError(f"{who} answered {status}")
    return MisconfiguredError(f"{who} answered {status}: look at the address and the parameters")


def _parsed(who, body):
    try:
        if len(body) > MOST_READ:
            raise ValueError
        return json.loads(body)
    except ValueError:
        raise MisconfiguredError(f"{who} did not answer with JSON; is the address right?") from None


def _require_safe(who, base, plain):
    try:
        parts = urlsplit(base)
        host, fine = parts.hostname, parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        host, fine = None, False
    if not fine or not host or any(ord(c) <= 32 or ord(c) >= 127 for c in base):
        raise MisconfiguredError(f"{who}: its address is not one of http or https")
    if parts.scheme == "http" and host not in _LOOPBACK and not plain:
        raise MisconfiguredError(
            f"{who}: {host} would get the token over plain http; use https, or set plain_http"
        )
    return host


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are refusals: followed, they would carry the token to another host."""

    def redirect_request(self, *args):
        return None


def _opener():
    return urllib.request.build_opener(_NoRedirect)
