"""The environment a task gets: only what ``permissions.env`` declares, resolved at each start.

What of it must not be seen is decided here too: the values of secrets, and host variables whose
names say that they hold one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.runs.model import Run
from dicode_mcp.runs.redaction import MIN_LENGTH, Redactor
from dicode_mcp.spec.model import EnvEntry, Task

_RESERVED = re.compile(r"^DICODE_")
_TELLING = re.compile(
    r"(?:^|_)(?:KEY|APIKEY|TOKEN|SECRET|SECRETS|PASS|PASSWD|PASSWORD|PASSPHRASE|PWD|PIN|AUTH|"
    r"CREDENTIAL|CREDENTIALS|COOKIE|DSN|SIGNATURE|WEBHOOK|WEBHOOK_URL|PRIVATE|CERT)(?:_|$)",
    re.IGNORECASE,
)
_NOT_TELLING = frozenset({"PWD", "OLDPWD"})


class Secrets(Protocol):
    """Where secrets come from."""

    def value_of(self, name: str) -> str | None:
        """Give a secret's value; None when there is none. Raises SECRETS_LOCKED."""
        ...


class Providers(Protocol):
    """Tasks that resolve secrets for others."""

    async def ask(
        self, run: Run, task: Task, entries: Sequence[EnvEntry], *, by_full_id: bool = False
    ) -> Mapping[str, str]:
        """Give the values by the entries' names; those that no provider has are left out.

        ``by_full_id``: the providers are not looked for among the task's siblings. Raises
        SECRET_MISSING when a provider cannot be asked, and names it.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProviderLink:
    """A provider task that is asked for secrets no place before it has, by its full id."""

    task_id: str


class Prerequisites(Protocol):
    """Tasks that see to what is missing."""

    async def see_to(self, run: Run, task: Task, entry: EnvEntry) -> str:
        """Start the task that ``entry.if_missing`` names; say what was done, in a sentence."""
        ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """A run's environment, and what must not be seen of it."""

    env: Mapping[str, str] = field(repr=False)
    hide: Redactor
    shown: tuple[str, ...] = ()
    """Names of secrets that cannot be hidden: their values are too short to be told apart."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Resolves declared entries against the server's own environment and its secrets.

    ``links`` are the places secrets come from, asked in order.
    ``withheld`` are variables no task gets, whatever it declares (tokens of git sources and push
    webhooks); every ``DICODE_*`` variable is withheld too.
    """

    host: Mapping[str, str] = field(repr=False)
    links: Sequence[Secrets | ProviderLink]
    providers: Providers
    prerequisites: Prerequisites
    withheld: Collection[str] = ()

    async def resolve(self, run: Run, task: Task) -> Resolved:
        """Give the variables of one run.

        Raises INVALID_ARGUMENT for a host variable that is not set, SECRET_MISSING for a secret,
        both naming what to do, FORBIDDEN for a withheld one, SECRETS_LOCKED. Entries marked
        optional are left out. Of each other one that is missing the ``if_missing`` task is
        started first.
        """
        entries = task.spec.permissions.env
        asked = [entry for entry in entries if entry.source == "task"]
        provided: Mapping[str, str] = {}
        if asked:
            provided = await self.providers.ask(run, task, asked)
        stored = await self._stored(run, task, entries)
        found: dict[str, str] = {}
        hidden: list[tuple[str, str]] = []
        missing: list[EnvEntry] = []
        for entry in entries:
            value = self._value(entry, provided, stored)
            if value is None:
                missing += [] if entry.optional else [entry]
                continue
            found[entry.name] = value
            if _is_secret(entry):
                # Pairs: a secret may be called as another entry is.
                hidden.append((_shown_as(entry), value))
        if missing:
            raise await self._refusal(run, task, missing)
        hide = Redactor(hidden)
        return Resolved(found, hide, hide.too_short)

    def _value(
        self, entry: EnvEntry, provided: Mapping[str, str], stored: Mapping[str, str]
    ) -> str | None:
        match entry.source:
            case "literal":
                return entry.value or ""
            case "host":
                return self._host_value(entry)
            case "secret":
                return stored.get(entry.key or entry.name)
            case "task":
                return provided.get(entry.name)

    async def _stored(self, run: Run, task: Task, entries: Sequence[EnvEntry]) -> Mapping[str, str]:
        """Give the secrets that entries name, each from the first link that has it."""
        names = dict.fromkeys(e.key or e.name for e in entries if e.source == "secret")
        found: dict[str, str] = {}
        for link in self.links:
            wanted = [name for name in names if name not in found]
            if not wanted:
                break
            if not isinstance(link, ProviderLink):
                values = {name: link.value_of(name) for name in wanted}
                found |= {name: value for name, value in values.items() if value is not None}
            elif link.task_id != task.id:
                # Its own secrets a provider finds in the other places.
                asked = [EnvEntry(name=n, source="task", key=link.task_id) for n in wanted]
                found |= await self.providers.ask(run, task, asked, by_full_id=True)
        return found

    async def _refusal(self, run: Run, task: Task, missing: Sequence[EnvEntry]) -> DicodeError:
        """Say what is missing, once what sees to it was started."""
        error = _unset(missing[0]) if missing[0].source == "host" else _missing(missing[0])
        if len(missing) > 1:
            names = [entry.name for entry in missing]
            error.message += f" (missing besides: {', '.join(names[1:])})"
            error.data["missing"] = names
        done = [
            await self.prerequisites.see_to(run, task, entry)
            for entry in missing
            if entry.if_missing
        ]
        if done:
            # Two keys may well have one task; it is told once for each.
            error.message = "; ".join([error.message, *dict.fromkeys(done)])
        return error

    def _host_value(self, entry: EnvEntry) -> str | None:
        variable = entry.key or entry.name
        if _RESERVED.match(variable) or variable in self.withheld:
            raise DicodeError(
                Code.FORBIDDEN,
                f"permissions.env: the variable {variable} belongs to the server and is never"
                " passed to a task",
                hint="give the task a variable of its own",
            )
        return self.host.get(variable)


def _shown_as(entry: EnvEntry) -> str:
    """Give the name that is written where an entry's value was."""
    return (entry.key if entry.source == "secret" else None) or entry.name


def _is_secret(entry: EnvEntry) -> bool:
    """Tell whether an entry's value is to be hidden. A literal stands in a file for all to read."""
    if entry.source in ("secret", "task"):
        return True
    names = {entry.name, entry.key or entry.name} - _NOT_TELLING
    return entry.source == "host" and any(_TELLING.search(name) for name in names)


def _unset(entry: EnvEntry) -> DicodeError:
    variable = entry.key or entry.name
    return DicodeError(
        Code.INVALID_ARGUMENT,
        f"permissions.env: the variable {variable} is not set where the server runs",
        hint=f"set {variable} before `dicode serve`, or mark the entry `optional: true`",
        data={"name": entry.name, "variable": variable},
        retry=Retry.AFTER,
    )


def _missing(entry: EnvEntry) -> DicodeError:
    if entry.source == "task":
        return DicodeError(
            Code.SECRET_MISSING,
            f"permissions.env: the provider task '{entry.key}' has no value for {entry.name}",
            hint="look at the provider's last run, or mark the entry `optional: true`",
            data={"name": entry.name, "provider": entry.key, "reason": "required_secret_missing"},
            retry=Retry.AFTER,
        )
    name = entry.key or entry.name
    return DicodeError(
        Code.SECRET_MISSING,
        f"permissions.env: {entry.name} needs the secret '{name}', which is not there",
        hint=f"set it: dicode secrets set {name} (or the tool secrets_set);"
        " or mark the entry `optional: true`",
        data={"name": entry.name, "secret": name},
        retry=Retry.AFTER,
    )


def too_short(names: Sequence[str]) -> str:
    """Say which secrets cannot be hidden."""
    return (
        f"[dicode] {', '.join(names)}: shorter than {MIN_LENGTH} characters, so it cannot be told"
        " from other text and is not hidden in logs and results; use a longer secret"
    )
