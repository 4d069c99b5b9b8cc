"""Fields whose names say that they hold a secret: their values are not shown.

For what callers give (params, inputs, headers, answers), where nobody knows the values before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

HIDDEN = "[redacted]"
"""What is shown for such a value."""

WORDS = frozenset(
    {
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "cookies",
        "credential",
        "credentials",
        "cvc",
        "cvv",
        "dsn",
        "jwt",
        "otp",
        "pass",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pin",
        "pwd",
        "secret",
        "secrets",
        "signature",
        "token",
        "tokens",
    }
)
"""Words of a name, each of which tells by itself: ``db_password``, ``X-Auth-Token``."""
RUNS = (
    "accesskey",
    "apikey",
    "authkey",
    "clientkey",
    "connectionstring",
    "encryptionkey",
    "masterkey",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "sessionid",
    "sessionkey",
    "sharedkey",
    "signingkey",
    "sshkey",
    "webhookurl",
)
"""What tells wherever it stands in a name without separators: ``api-key``, ``openai_apikey``."""
_COUNTED = frozenset({"count", "counts", "limit", "max", "min", "total", "used", "usage", "budget"})
# A token_limit is a number of tokens.

_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_PAIR = re.compile(r"([A-Za-z][A-Za-z0-9_.\-]{1,63})(=|%3[dD])([^&;\s\"']{1,4096})")


def tells(name: str) -> bool:
    """Tell whether a field's name says that its value is a secret, whatever its case and form."""
    parts = [part.lower() for part in _PARTS.findall(name)]
    joined = "".join(parts)
    if any(run in joined for run in RUNS):
        return True
    return not WORDS.isdisjoint(parts) and _COUNTED.isdisjoint(parts)


def hidden(value: Any) -> Any:
    """Give a JSON-able value without what such fields hold, at any depth.

    Of texts, what looks like ``name=value`` (a form, the query of a URL) is looked at as a field.
    """
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {name: _field(str(name), item) for name, item in fields.items()}
    if isinstance(value, (list, tuple)):
        return [hidden(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, str):
        return _PAIR.sub(_pair, value)
    return value


def _field(name: str, value: Any) -> Any:
    # What is unset is no secret, and that it is unset may be what is wrong.
    if tells(name) and value is not None and value != "" and not isinstance(value, bool):
        return HIDDEN
    return hidden(value)


def _pair(found: re.Match[str]) -> str:
    name, equals, value = found.groups()
    return f"{name}{equals}{HIDDEN if tells(name) else value}"
