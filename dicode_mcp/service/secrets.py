"""Use cases on secrets: set, list names, delete. No caller is ever shown a value."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from dicode_mcp.clock import iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.registry import Registry
from dicode_mcp.secrets.vault import MAX_VALUE, NAME, check_name
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.scopes import ADMIN, SECRETS
from dicode_mcp.spec.model import SecretRef, Task
from dicode_mcp.spec.permissions import RESERVED_PREFIX

_NO_NAME = "(not a name)"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
MAX_USERS = 20
"""How many tasks a listing names for each secret."""


class SecretValues(Protocol):
    """The store of values."""

    def names(self) -> list[str]:
        """Give the names, sorted."""
        ...

    def changed(self, name: str) -> tuple[int, str] | None:
        """Give when a secret was last set (epoch ms) and by whom."""
        ...

    async def set(self, name: str, value: str, actor: str) -> bool:
        """Set a secret; tells whether it is a new one."""
        ...

    async def delete(self, name: str) -> bool:
        """Forget a secret; tells whether there was one."""
        ...


class Elsewhere(Protocol):
    """All places a secret may come from."""

    def has(self, name: str) -> str | None:
        """Give the kind of the place that has the secret, None when there is none."""
        ...

    @property
    def later(self) -> tuple[str, ...]:
        """The provider tasks that are asked for what is in none of these places."""
        ...


class SecretsService:
    """What callers may do with secrets."""

    def __init__(
        self,
        *,
        values: SecretValues,
        chain: Elsewhere,
        registry: Registry,
        audit: Audit,
        environ: Mapping[str, str],
        withheld: Collection[str],
        data_dir: Path,
    ) -> None:
        self._values = values
        self._chain = chain
        self._registry = registry
        self._audit = audit
        self._environ = environ
        self._withheld = withheld
        self._data_dir = data_dir

    async def set(
        self,
        principal: Principal,
        name: str,
        *,
        value: str | None = None,
        from_env: str | None = None,
        from_file: str | None = None,
    ) -> dict[str, Any]:
        """Set a secret from exactly one of the three: ``{name, created, used_by[]}``.

        Raises INVALID_ARGUMENT, TOO_LARGE, NOT_FOUND, FORBIDDEN; none of them shows the value.
        """
        how = _only_one(value=value, from_env=from_env, from_file=from_file)
        async with self._audit.action(principal, "secrets_set", _noted(name), how=how):
            check_name(name)
            self._require(principal, name)
            if from_env is not None:
                self._require_machine(principal, how)
                value = self._variable(from_env)
            elif from_file is not None:
                self._require_machine(principal, how)
                value = await asyncio.to_thread(self._file, from_file)
            assert value is not None
            created = await self._values.set(name, value, principal.actor)
        return {"name": name, "created": created, **self._users(principal, name)}

    def list(self, principal: Principal) -> dict[str, Any]:
        """Show what there is and what is asked for and missing, by name.

        ``{secrets: [{name, updated_at, updated_by, used_by[]}], missing: [{name, used_by[]}],
        elsewhere: [{name, provider, used_by[]}]}``
        """
        principal.require("read")
        users = self._uses()
        kept = [name for name in self._values.names() if self._may_see(principal, name, users)]
        out: dict[str, Any] = {"secrets": [self._line(principal, n, users) for n in kept]}
        idle = self._idle_providers()
        asked = sorted(
            name
            for name in set(users) - set(self._values.names())
            if not idle.issuperset(users[name])
        )
        missing: list[dict[str, Any]] = []
        elsewhere: list[dict[str, Any]] = []
        for name in asked:
            line = {"name": name, **_named(users[name], principal)}
            if not line["used_by"]:
                continue
            place = self._chain.has(name) or self._asked_later()
            (elsewhere.append({**line, "provider": place}) if place else missing.append(line))
        if missing:
            out["missing"] = missing
        if elsewhere:
            out["elsewhere"] = elsewhere
        return out

    async def delete(self, principal: Principal, name: str) -> dict[str, Any]:
        """Forget a secret: ``{name, deleted, breaks[]}`` with the tasks that lose it.

        Raises NOT_FOUND.
        """
        async with self._audit.action(principal, "secrets_delete", _noted(name)):
            check_name(name)
            self._require(principal, name)
            if not await self._values.delete(name):
                raise DicodeError(
                    Code.NOT_FOUND,
                    f"there is no secret '{name}'",
                    hint="secrets_list shows the names",
                )
        broken = [] if self._chain.has(name) else self._uses().get(name, [])
        return {"name": name, "deleted": True, "breaks": _named(broken, principal)["used_by"]}

    def require(self, principal: Principal, name: str) -> None:
        """Refuse what is no name (INVALID_ARGUMENT) and who may not set it (FORBIDDEN)."""
        check_name(name)
        self._require(principal, name)

    def _asked_later(self) -> str | None:
        """Name the provider tasks that may have what nothing here has."""
        return ", ".join(f"task:{task_id}" for task_id in self._chain.later) or None

    def users_of(self, name: str) -> list[str]:
        """Give the ids of the tasks that ask for a secret, sorted."""
        return self._uses().get(name, [])

    # ── Who may ──

    def _require(self, principal: Principal, name: str) -> None:
        if not principal.allows(SECRETS) or not principal.allows_secret(name):
            principal.require(SECRETS)
            raise DicodeError(
                Code.FORBIDDEN,
                f"not allowed: the secret '{name}' is outside what the caller may use",
                hint=f"use a key with the scope {SECRETS}:{name}",
            )

    def _require_machine(self, principal: Principal, how: str) -> None:
        """Let a key that is not an administrator's read nothing of the server's machine."""
        if principal.scopes is not None and not principal.allows(ADMIN):
            raise DicodeError(
                Code.FORBIDDEN,
                f"not allowed: {how} reads the server's own machine, which takes the scope admin",
                hint="give the value, or set the secret on that machine: dicode secrets set NAME",
            )

    def _may_see(self, principal: Principal, name: str, users: Mapping[str, list[str]]) -> bool:
        if principal.has_all("read") or principal.allows_secret(name):
            return True
        return any(principal.sees(task_id) for task_id in users.get(name, ()))

    # ── Where values come from ──

    def _variable(self, name: str) -> str:
        if name.startswith(RESERVED_PREFIX) or name in self._withheld:
            raise DicodeError(
                Code.FORBIDDEN,
                f"the variable {_shown(name)} belongs to the server and never becomes a task's"
                " secret",
                hint="use a variable of its own",
            )
        value = self._environ.get(name)
        if not value:
            raise DicodeError(
                Code.NOT_FOUND,
                f"the variable {_shown(name)} is not set where the server runs",
                hint="set it before `dicode serve`, or type the value: dicode secrets set NAME",
            )
        return value

    def _file(self, text: str) -> str:
        """Read a file of the server's machine: a plain one of its own user. Blocks."""
        path = Path(text)
        if not path.is_absolute():
            raise _invalid("from_file is relative", "give an absolute path on the server's machine")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise DicodeError(
                Code.NOT_FOUND,
                f"from_file cannot be read: {error.strerror}",
                hint="give a plain file that the server's user owns",
            ) from None
        try:
            self._check_file(path, os.fstat(descriptor))
            data = os.read(descriptor, MAX_VALUE + 2)
        finally:
            os.close(descriptor)
        try:
            # An editor ends a file with a newline that is no part of the secret.
            return data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise _invalid("from_file is not UTF-8", "encode it, for example in base64") from None

    def _check_file(self, path: Path, state: os.stat_result) -> None:
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid():
            raise _invalid(
                "from_file is no plain file of the server's user",
                "give a plain file that the server's user owns",
            )
        if Path(os.path.realpath(path)).is_relative_to(self._data_dir.resolve()):
            raise _invalid("from_file lies in the server's data dir", "give another file")

    # ── Who uses them ──

    def _uses(self) -> dict[str, list[str]]:
        found: dict[str, set[str]] = {}
        for entry in self._registry.entries():
            for task in (entry.task, entry.waiting):
                for name in asked_by(task) if task else ():
                    found.setdefault(name, set()).add(entry.id)
        return {name: sorted(ids) for name, ids in found.items()}

    def _idle_providers(self) -> set[str]:
        """Give the provider tasks that nobody asks: those that come with dicode, for the most."""
        asked = set(self._chain.later)
        providers: set[str] = set()
        for entry in self._registry.entries():
            for task in (entry.task, entry.waiting):
                if task is None:
                    continue
                providers |= {entry.id} if task.spec.provider is not None else set()
                for env in task.spec.permissions.env:
                    found = self._registry.resolve(env.key or "", near=entry.id)
                    asked |= {found.id} if env.source == "task" and found else set()
        return providers - asked

    def _users(self, principal: Principal, name: str) -> dict[str, Any]:
        return _named(self.users_of(name), principal)

    def _line(
        self, principal: Principal, name: str, users: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        line: dict[str, Any] = {"name": name}
        changed = self._values.changed(name)
        if changed is not None:
            line |= {"updated_at": iso(changed[0]), "updated_by": changed[1]}
        return line | _named(users.get(name, []), principal)


def asked_by(task: Task) -> list[str]:
    """Give the names of the stored secrets that a task's manifest asks for."""
    names = [e.key for e in task.spec.permissions.env if e.source == "secret" and e.key]
    hook = task.spec.trigger.webhook_secret
    return [*names, *([hook.secret] if isinstance(hook, SecretRef) else [])]


def _named(ids: list[str], principal: Principal) -> dict[str, Any]:
    seen = [task_id for task_id in ids if principal.sees(task_id)]
    out: dict[str, Any] = {"used_by": seen[:MAX_USERS]}
    if len(seen) > MAX_USERS:
        out["used_by_count"] = len(seen)
    return out


def _only_one(**given: str | None) -> str:
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        found = " and ".join(named) if named else "none"
        raise _invalid(
            f"secrets_set needs exactly one of value, from_env and from_file; found {found}",
            "from_env and from_file keep the value out of the conversation",
        )
    return named[0]


def _noted(name: str) -> str:
    """Give a secret's name for the audit; what is none may be a value, given by mistake."""
    return name if NAME.fullmatch(name) else _NO_NAME


def _shown(variable: str) -> str:
    """Give a variable's name for a message; what is none may be a value, given by mistake."""
    return variable if _VARIABLE.fullmatch(variable) else _NO_NAME


def _invalid(message: str, hint: str) -> DicodeError:
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)
