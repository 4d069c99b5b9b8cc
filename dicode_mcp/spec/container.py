"""The container of a docker or podman task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from dicode_mcp.spec.base import Findings, Model, Raw, fail
from dicode_mcp.spec.fields import Line, Number, PositiveSize
from dicode_mcp.spec.ids import check_variable
from dicode_mcp.spec.permissions import RESERVED_PREFIX, literal_text

_VOLUME_OPTIONS = frozenset({"ro", "rw", "z", "Z", "U", "noexec", "nosuid", "nodev"})
_PORT = re.compile(
    r"(?:(?P<ip>[0-9.]+|\[[0-9a-fA-F:]+\]):)?(?P<host>[0-9]+):(?P<inner>[0-9]+)(?:/(?:tcp|udp))?"
)


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        fail("must be a path inside the task folder")
    return text


InnerPath = Annotated[Line, AfterValidator(_inside)]


class ContainerBuild(Model):
    """How to build the image; both paths are relative to the task folder."""

    dockerfile: InnerPath = "Dockerfile"
    context: InnerPath = "."


def _volume(text: str) -> str:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0] or not parts[1].startswith("/"):
        fail("is not a volume", "write host:container or host:container:ro, container absolute")
    if len(parts) == 3 and not set(parts[2].split(",")) <= _VOLUME_OPTIONS:
        fail("has an unknown volume option", "allowed: " + ", ".join(sorted(_VOLUME_OPTIONS)))
    return text


def _port(text: str) -> str:
    found = _PORT.fullmatch(text)
    numbers = (found.group("host"), found.group("inner")) if found else ()
    if not found or not all(1 <= int(n) <= 65535 for n in numbers if len(n) < 6):
        fail("is not a port mapping", "write hostPort:containerPort, such as 8080:80")
    if any(len(n) > 5 for n in numbers):
        fail("has a port that is not a number from 1 to 65535")
    return text


def _text_map(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    findings = Findings()
    out: dict[str, str] = {}
    for name, item in cast(Raw, value).items():
        findings.attempt((name,), lambda name=name: _variable(name))
        if not isinstance(item, (str, int, float)):
            findings.add((name,), "must be text")
        out[name] = literal_text(item)
    findings.raise_any("env_vars")
    return out


def _variable(name: str) -> None:
    try:
        check_variable(name)
    except ValueError as error:
        fail(str(error))
    if name.startswith(RESERVED_PREFIX):
        fail(f"names of {RESERVED_PREFIX}* are the server's own", "use another name")


def _number_text(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole else value


class ContainerSpec(Model):
    """The container of a docker or podman task."""

    image: Line | None = None
    build: ContainerBuild | None = None
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    volumes: tuple[Annotated[Line, AfterValidator(_volume)], ...] = ()
    ports: tuple[Annotated[Line, AfterValidator(_port)], ...] = ()
    working_dir: Annotated[Line, Field(pattern="^/")] | None = None
    env_vars: Annotated[Mapping[str, str], BeforeValidator(_text_map)] = Field(default_factory=dict)
    pull_policy: Literal["missing", "always", "never"] = "missing"
    network: Line | None = None
    user: Annotated[Line, BeforeValidator(_number_text)] | None = None
    cpus: Annotated[Number, Field(gt=0)] | None = None
    memory: PositiveSize | None = None
    """Bytes."""
    gpus: Annotated[Line, BeforeValidator(_number_text)] | None = None

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want an image or a build, not both."""
        image, build = raw.get("image") is not None, raw.get("build") is not None
        if image and build:
            findings.add((), "has both image and build", "keep one of the two")
        elif not image and not build:
            findings.add((), "needs an image or a build", "add 'image: name:tag' or 'build:'")
