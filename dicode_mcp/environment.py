"""The environment a task gets: only what ``permissions.env`` declares, resolved at each start."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.spec.model import EnvEntry, Task

_RESERVED = re.compile(r"^DICODE_")


@dataclass(frozen=True, slots=True)
class Environment:
    """Resolves declared entries against the server's own environment.

    ``withheld`` are variables no task gets, whatever it declares (tokens of git sources and push
    webhooks); every ``DICODE_*`` variable is withheld too.
    """

    host: Mapping[str, str]
    withheld: Collection[str] = ()

    def resolve(self, task: Task) -> dict[str, str]:
        """Give the variables of one run.

        Raises INVALID_ARGUMENT for a host variable that is not set, SECRET_MISSING for a secret,
        both naming what to do, FORBIDDEN for a withheld one. Entries marked optional are left out.
        """
        found: dict[str, str] = {}
        for entry in task.spec.permissions.env:
            value = self._value(entry)
            if value is not None:
                found[entry.name] = value
        return found

    def _value(self, entry: EnvEntry) -> str | None:
        if entry.source == "literal":
            return entry.value or ""
        if entry.source == "host":
            return self._host_value(entry)
        if entry.optional:
            return None
        kind = "secret" if entry.source == "secret" else "provider task"
        raise DicodeError(
            Code.SECRET_MISSING,
            f"permissions.env: {entry.name} needs the {kind} '{entry.key}', which is not there",
            hint="this server has no secrets store yet; use `from: env:HOST_VARIABLE`,"
            " or mark the entry `optional: true`",
            data={"name": entry.name, "secret": entry.key},
            retry=Retry.AFTER,
        )

    def _host_value(self, entry: EnvEntry) -> str | None:
        variable = entry.key or entry.name
        if _RESERVED.match(variable) or variable in self.withheld:
            raise DicodeError(
                Code.FORBIDDEN,
                f"permissions.env: the variable {variable} belongs to the server and is never"
                " passed to a task",
                hint="give the task a variable of its own",
            )
        value = self.host.get(variable)
        if value is None and not entry.optional:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                f"permissions.env: the variable {variable} is not set where the server runs",
                hint=f"set {variable} before `dicode serve`, or mark the entry `optional: true`",
                data={"name": entry.name, "variable": variable},
                retry=Retry.AFTER,
            )
        return value
