"""The key of a webhook: the text its task declares, or a secret, asked for at each message.

Nothing is kept between two messages, so a secret that is set, changed or deleted is so at once.
"""

from __future__ import annotations

from typing import Protocol

from dicode_mcp.conditions import Condition
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec.hook_secret import secret_not_set, webhook_secret_missing
from dicode_mcp.spec.model import SecretRef, Task


class Secrets(Protocol):
    """Where secrets come from."""

    def value_of(self, name: str) -> str | None:
        """Give a secret's value; None when there is none. Raises SECRETS_LOCKED."""
        ...


class HookKeys:
    """Knows the keys of webhooks that declare one."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def of(self, task: Task) -> str | None:
        """Give the key of a task that declares one; None when it is not there."""
        declared = task.spec.trigger.webhook_secret
        if isinstance(declared, SecretRef):
            return self._stored(declared.secret)
        return None if webhook_secret_missing(task) else declared

    def missing(self, task: Task) -> tuple[Condition, ...]:
        """Give ``Ready=False`` when a secret that a webhook names is not there."""
        declared = task.spec.trigger.webhook_secret
        if not isinstance(declared, SecretRef) or self._stored(declared.secret) is not None:
            return ()
        return (secret_not_set(declared.secret),)

    def served(self, task: Task) -> bool:
        """Tell whether messages may start a task: what it declares is there."""
        return task.spec.trigger.webhook_secret is None or self.of(task) is not None

    def _stored(self, name: str) -> str | None:
        try:
            return self._secrets.value_of(name) or None
        except DicodeError as error:
            if error.code is not Code.SECRETS_LOCKED:
                raise
            # What cannot be opened proves nobody; the server's start says why.
            return None
