"""What is said of a webhook whose declared secret is not there; it must not be served then.

Whether a stored secret is there is not known here.
"""

from __future__ import annotations

import re

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.templates import has_placeholder

_KEY = "task.yaml: trigger.webhook_secret"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def webhook_secret_missing(task: Task) -> tuple[Condition, ...]:
    """Give a ``Ready`` that is False when a secret's variable is not set, and what to do."""
    secret = task.spec.trigger.webhook_secret
    if not isinstance(secret, str) or not has_placeholder(secret):
        return ()
    names = list(dict.fromkeys(_VARIABLE.findall(secret)))
    if not names:
        return (_missing('holds "${" but names no variable; write "${VARIABLE}"'),)
    named, are = ", ".join(names), "are" if len(names) > 1 else "is"
    told = _missing(
        f"{named} {are} not set in the server's environment (variables named DICODE_* and those "
        f"of token_env or push_secret_env are never used here); start the server with {named} set"
    )
    return (told,)


def secret_not_set(name: str) -> Condition:
    """Give the ``Ready`` of a webhook whose stored secret is not there."""
    return _missing(f"there is no secret {name!r}; set it: dicode secrets set {name}")


def _missing(what: str) -> Condition:
    message = f"{_KEY}: {what}; until then the webhook is not served"
    return Condition(ConditionType.READY, False, "WebhookSecretMissing", message)
