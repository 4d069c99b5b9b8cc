"""Whether a webhook's declared secret is there; without it the webhook must not be served."""

from __future__ import annotations

import re

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.spec.model import SecretRef, Task
from dicode_mcp.spec.templates import has_placeholder

_KEY = "task.yaml: trigger.webhook_secret"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def webhook_secret_missing(task: Task) -> tuple[Condition, ...]:
    """Give a ``Ready`` that is False when the secret's value is not there, and what to do."""
    secret = task.spec.trigger.webhook_secret
    if isinstance(secret, SecretRef):
        return _missing(
            f"this build has no secrets store, so there is no secret {secret.secret!r}; "
            'write "${VARIABLE}" and set that variable in the server\'s environment'
        )
    if secret is None or not has_placeholder(secret):
        return ()
    names = list(dict.fromkeys(_VARIABLE.findall(secret)))
    if not names:
        return _missing('holds "${" but names no variable; write "${VARIABLE}"')
    named, are = ", ".join(names), "are" if len(names) > 1 else "is"
    return _missing(
        f"{named} {are} not set in the server's environment (variables named DICODE_* and those "
        f"of token_env or push_secret_env are never used here); start the server with {named} set"
    )


def _missing(what: str) -> tuple[Condition, ...]:
    message = f"{_KEY}: {what}; until then the webhook is not served"
    return (Condition(ConditionType.READY, False, "WebhookSecretMissing", message),)
