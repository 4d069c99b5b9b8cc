"""What a task may do: its environment, files, network, programs and calls to the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from dicode_mcp.spec.base import FROM_FILE, Findings, Model, Raw, checked, fail
from dicode_mcp.spec.fields import Flag, Line, SysName, TaskGlob, TaskRef
from dicode_mcp.spec.ids import check_task_id, check_variable
from dicode_mcp.spec.problems import choices
from dicode_mcp.spec.templates import has_placeholder

RESERVED_PREFIX = "DICODE_"


class IfMissing(Model):
    """What to run when an environment entry has no value."""

    task: TaskRef


class EnvEntry(Model):
    """One environment variable of the task. Exactly one origin is set.

    ``source`` is ``host`` (``key`` is a variable of the server), ``literal`` (``value``),
    ``secret`` (``key`` is a secret's name) or ``task`` (``key`` is a provider task's id).
    In a file: ``NAME``, ``NAME=value`` or a map with one of ``value``, ``from``, ``secret``.
    """

    name: str
    source: Literal["host", "literal", "secret", "task"]
    key: str | None = None
    value: str | None = None
    optional: Flag = False
    if_missing: IfMissing | None = None

    @model_serializer(mode="wrap")
    def _file_form(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        out: dict[str, Any] = {"name": self.name}
        if self.source == "literal":
            out["value"] = self.value
        elif self.source == "secret":
            out["secret"] = self.key
        elif self.source == "task":
            out["from"] = f"task:{self.key}"
        elif self.key != self.name:
            out["from"] = self.key
        if self.optional:
            out["optional"] = True
        if self.if_missing:
            out["if_missing"] = {"task": self.if_missing.task}
        return out


_ENV_KEYS = ("name", "value", "from", "secret", "optional", "if_missing")
_ORIGINS = ("value", "from", "secret")


def read_env_entry(entry: Any, from_file: bool) -> EnvEntry:
    """Read one entry of ``permissions.env`` in any of its forms; code may also use the fields'."""
    if isinstance(entry, EnvEntry):
        return entry
    findings = Findings()
    if isinstance(entry, str):
        fields = _from_text(entry, findings)
    elif isinstance(entry, Mapping):
        raw = cast(Raw, entry)
        by_fields = "source" in raw and not from_file
        fields = dict(raw) if by_fields else _from_map(raw, findings)
    else:
        fail("must be NAME, NAME=value or a map with 'name'")
    findings.raise_any("EnvEntry")
    return EnvEntry.model_validate(fields)


def _from_text(text: str, findings: Findings) -> dict[str, Any]:
    name, sign, value = text.partition("=")
    _check_name((), name, findings)
    if sign:
        return {"name": name, "source": "literal", "value": value}
    return {"name": name, "source": "host", "key": name}


def _from_map(raw: Raw, findings: Findings) -> dict[str, Any]:
    for key in raw:
        if key not in _ENV_KEYS:
            findings.add((key,), "unknown key", choices(key, _ENV_KEYS))
    name = raw.get("name")
    if not isinstance(name, str):
        findings.add(("name",), "is required and must be text", "add 'name: VARIABLE'")
        name = "_"
    else:
        _check_name(("name",), name, findings)
    origins = [origin for origin in _ORIGINS if raw.get(origin) is not None]
    if len(origins) > 1:
        findings.add((), f"has {' and '.join(origins)}", "keep one of value, from, secret")
    out: dict[str, Any] = {"name": name}
    out |= _origin(raw, origins[0] if origins else "", name, findings)
    if "optional" in raw:
        _check_optional(raw["optional"], out, findings)
    if raw.get("if_missing") is not None:
        out["if_missing"] = findings.attempt(
            ("if_missing",), lambda: IfMissing.model_validate(raw["if_missing"])
        )
    return out


def _check_optional(value: Any, out: dict[str, Any], findings: Findings) -> None:
    if not isinstance(value, bool):
        findings.add(("optional",), "must be true or false")
        return
    if value and out["source"] == "literal":
        findings.add(("optional",), "a literal value is never missing", "remove 'optional'")
    out["optional"] = value


def _origin(raw: Raw, origin: str, name: str, findings: Findings) -> dict[str, Any]:
    if not origin:
        return {"source": "host", "key": name}
    value = raw[origin]
    if origin == "value":
        if not isinstance(value, (str, int, float)):
            findings.add(("value",), "must be text")
        return {"source": "literal", "value": literal_text(value)}
    if not isinstance(value, str) or not value.strip():
        findings.add((origin,), "must be text and not empty")
        return {"source": "host", "key": name}
    if origin == "secret":
        return {"source": "secret", "key": value}
    return _from(value, findings)


def _from(text: str, findings: Findings) -> dict[str, Any]:
    if text.startswith("task:"):
        task = text.removeprefix("task:")
        findings.attempt(("from",), lambda: checked(check_task_id)(task))
        return {"source": "task", "key": task}
    key = text.removeprefix("env:")
    if not has_placeholder(key):
        _check_name(("from",), key, findings)
    return {"source": "host", "key": key}


def literal_text(value: Any) -> str:
    """Write a scalar as an environment variable holds it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _check_name(path: tuple[str, ...], name: str, findings: Findings) -> None:
    findings.attempt(path, lambda: checked(check_variable)(name))
    if name.startswith(RESERVED_PREFIX):
        findings.add(path, f"names of {RESERVED_PREFIX}* are the server's own", "use another name")


class FsGrant(Model):
    """A path the task may use; absolute once loaded."""

    path: Line
    permission: Literal["r", "w", "rw"] = "r"


class DicodeGrants(Model):
    """What the task may ask of the server; everything is denied by default."""

    tasks: tuple[TaskGlob, ...] = ()
    agents: tuple[TaskGlob, ...] = ()
    mcp: tuple[TaskGlob, ...] = ()
    list_tasks: Flag = False
    get_runs: Flag = False
    secrets_write: Flag = False
    runs_replay: Flag = False
    tasks_test: Flag = False
    sources_set_dev_mode: Flag = False
    git_commit_push: Flag = False
    authoring: Flag = False


_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_LAST_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?$")
"""Ends like no name does: an address, perhaps in a spelling of its own."""


def _net(text: str) -> str:
    """Check a host, ``*.domain`` or an address, each with or without a port, or ``*``.

    An IPv6 address with a port stands in brackets.
    """
    if text == "*":
        return text
    if "://" in text:
        fail("is a URL", "write the host alone, such as 'api.example.com' or 'api.example.com:443'")
    host, port = split_port(text)
    if port is not None and not (port.isdecimal() and 1 <= int(port) <= 65535):
        fail("has a port that is not a number from 1 to 65535")
    if "/" in host:
        fail("holds a '/'", "write the host alone; paths and address ranges are not supported")
    if not _is_host(_without_wildcard(host)):
        fail(
            "is not a host",
            "write 'api.example.com', '*.example.com', 'host:port', an address, or '*'",
        )
    return text


def _without_wildcard(host: str) -> str:
    if "*" not in host:
        return host
    rest = host.removeprefix("*.")
    if "*" in rest or "." not in rest.removesuffix("."):
        fail(
            "holds a wildcard in another place than in front of a domain",
            "write '*.example.com' for every host below example.com, list each host, or '*' alone"
            " for all public addresses",
        )
    if _LAST_NUMBER.search(rest):
        fail("holds a wildcard in an address", "list each address; ranges are not supported")
    return rest


def split_port(text: str) -> tuple[str, str | None]:
    """Give host and port of ``host``, ``host:port``, ``[address]:port`` or an address."""
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            return text, None
        return address, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            IPv6Address(host)
        except ValueError:
            return False
        return True
    if _LAST_NUMBER.search(host):
        return _is_address(host)
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in labels)


def _is_address(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


NetRule = Annotated[str, AfterValidator(_net)]


class Permissions(Model):
    """What the task may do. ``net`` and ``run`` hold hosts and executables, or ``*``."""

    env: Annotated[tuple[EnvEntry, ...], Field()] = ()
    fs: tuple[FsGrant, ...] = ()
    net: tuple[NetRule, ...] = ()
    run: tuple[Line, ...] = ()
    sys: tuple[SysName, ...] = ()
    dicode: DicodeGrants = DicodeGrants()

    @field_validator("env", mode="before")
    @classmethod
    def _env_forms(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        context = cast("Mapping[str, Any] | None", info.context)
        from_file = context is not None and FROM_FILE in context
        findings = Findings()
        entries: list[EnvEntry] = []
        lines: dict[str, int] = {}
        for index, item in enumerate(cast("list[Any]", value)):
            entry = findings.attempt((index,), lambda item=item: read_env_entry(item, from_file))
            if entry is None:
                continue
            if entry.name in lines:
                findings.add((index,), f"{entry.name} is there twice", "keep one of the two")
            lines[entry.name] = index
            entries.append(entry)
        findings.raise_any("env")
        return tuple(entries)
