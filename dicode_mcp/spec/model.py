"""``task.yaml`` as frozen values: every field of SPEC 1, its type and its own rules.

Rules that need more than the document (files beside it, the environment, other tasks) live in
``loader``. Positions and wording of errors live in ``problems``. Parts with rules of their own
(trigger, permissions, container, parameters) have a module each and are named here again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from dicode_mcp.runs import retry
from dicode_mcp.spec.base import Findings, Model, Raw, checked, fail
from dicode_mcp.spec.container import ContainerBuild, ContainerSpec
from dicode_mcp.spec.fields import (
    SOME,
    Duration,
    Flag,
    Line,
    Number,
    OutputSchema,
    Port,
    Positive,
    PositiveDuration,
    PositiveSize,
    Priority,
    Segment,
)
from dicode_mcp.spec.ids import check_task_id
from dicode_mcp.spec.paramspec import ParamSpec, ParamType, read_params
from dicode_mcp.spec.permissions import DicodeGrants, EnvEntry, FsGrant, IfMissing, Permissions
from dicode_mcp.spec.problems import KeyPath, choices
from dicode_mcp.spec.quantities import parse_duration
from dicode_mcp.spec.trigger import ChainTrigger, SecretRef, TriggerSpec

__all__ = [
    "ApiSpec",
    "AutoFixSpec",
    "BudgetSpec",
    "ChainTrigger",
    "ConcurrencySpec",
    "ContainerBuild",
    "ContainerSpec",
    "DicodeGrants",
    "EnvEntry",
    "FailureChain",
    "FsGrant",
    "IfMissing",
    "McpSpec",
    "Model",
    "NotifySpec",
    "ParamSpec",
    "ParamType",
    "Permissions",
    "ProviderSpec",
    "ResourceSpec",
    "RetentionSpec",
    "RetrySpec",
    "RunInputsSpec",
    "SecretRef",
    "Task",
    "TaskSpec",
    "TriggerSpec",
]

RUNTIMES = ("python", "deno", "docker", "podman")
CONTAINER_RUNTIMES = frozenset({"docker", "podman"})
RUNTIME_ALIASES: Mapping[str, str] = {"js": "deno", "ts": "deno"}
DEFAULT_TIMEOUT_S = 60.0
MAX_BACKOFF_S = 300.0
RESERVED_CHAIN_PARAMS = ("taskID", "runID", "status", "output", "_chain_depth")

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")


def _retry_on(name: str) -> str:
    if name in retry.NEVER:
        fail("is never tried again: a repetition can only end the same way", "remove it")
    if name not in _RETRY_ON:
        fail("is not an end that can be tried again", choices(name, _RETRY_ON))
    return name


_RETRY_ON = (*retry.CLASSES, *(reason.value for reason in retry.REASONS))
RetryOn = Annotated[
    str, AfterValidator(_retry_on), WithJsonSchema({"type": "string", "enum": list(_RETRY_ON)})
]
"""A class of ends, or the reason of one kind of failure."""


class RetrySpec(Model):
    """When and how often to try again; ``attempts`` counts the first. Times are seconds."""

    attempts: Annotated[Positive, Field(le=100)] = 1
    backoff: Duration = 1.0
    max_backoff: Duration = MAX_BACKOFF_S
    deadline: PositiveDuration | None = None
    """From the first attempt's start: no attempt begins after it."""
    on: Annotated[tuple[RetryOn, ...], *SOME] = retry.CLASSES

    @classmethod
    def prepare(cls, raw: Raw) -> Raw:
        """Let a first delay above the default longest one be the longest one."""
        with suppress(ValueError):
            if "max_backoff" not in raw and parse_duration(raw.get("backoff", 0)) > MAX_BACKOFF_S:
                return {**raw, "max_backoff": raw["backoff"]}
        return raw

    @field_validator("max_backoff")
    @classmethod
    def _longest(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("backoff", 0):
            fail("is shorter than backoff")
        return value


class ConcurrencySpec(Model):
    """How many runs of the task at once; ``overlap`` None means the trigger's own default."""

    limit: Annotated[Positive, Field(le=10_000)] = 1
    key: Line | None = None
    overlap: Literal["queue", "skip", "replace", "allow"] | None = None


class ResourceSpec(Model):
    """Limits of one run: ``memory`` in bytes, ``cpu`` in cores, ``pids`` a count."""

    memory: PositiveSize | None = None
    cpu: Annotated[Number, Field(gt=0)] | None = None
    pids: Positive | None = None


class McpSpec(Model):
    """Whether and how the task is an MCP tool of its own."""

    expose: Flag = False
    tool_name: str | None = None
    read_only: Flag = False
    destructive: Flag = True

    @field_validator("tool_name")
    @classmethod
    def _tool_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[a-z0-9_]{1,48}", name):
            fail("is not a tool name", "1 to 48 of a-z, 0-9 and '_'")
        return name


class FailureChain(Model):
    """The task that runs when this one fails; an empty ``task`` switches the default off."""

    task: Annotated[str, AfterValidator(checked(lambda t: t and check_task_id(t)))]
    params: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("params")
    @classmethod
    def _not_reserved(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        findings = Findings()
        for name in params:
            if name in RESERVED_CHAIN_PARAMS:
                findings.add((name,), "is reserved: the server fills it", "use another name")
        findings.raise_any("params")
        return params


class NotifySpec(Model):
    """Notification flags; None means the server's default."""

    on_success: Flag | None = None
    on_failure: Flag | None = None


class ProviderSpec(Model):
    """The task resolves secrets for others. ``cache_ttl`` is seconds."""

    cache_ttl: Duration = 0


class BudgetSpec(Model):
    """What a day may cost; reached, the task pauses."""

    runs: Positive | None = None
    cpu_seconds: Annotated[Number, Field(gt=0)] | None = None
    tokens: Positive | None = None


class RunInputsSpec(Model):
    """Whether inputs are kept for replay; ``retention`` in seconds."""

    enabled: Flag = True
    retention: PositiveDuration | None = None


class RetentionSpec(Model):
    """How long runs of the task are kept: ``age`` in seconds, ``runs`` a number.

    None means the server's default; so a set can lay one of the two over a task.
    """

    age: PositiveDuration | None = None
    runs: Positive | None = None


class ApiSpec(Model):
    """What strangers to this server's ids may do over ``/api/tasks/trigger``.

    ``type`` is the task's name there; its id when there is none.
    """

    trigger: Flag = False
    type: Annotated[str, AfterValidator(checked(check_task_id))] | None = None


class AutoFixSpec(Model):
    """Opt-in repair by an agent when the task fails."""

    enabled: Flag = False
    max_iterations: Annotated[Positive, Field(le=20)] = 3
    max_tokens: Positive | None = None
    timeout: PositiveDuration | None = None
    cooldown: Duration | None = None


def _failure_chain(value: Any) -> Any:
    return {"task": value} if isinstance(value, str) else value


def _params_file_form(params: tuple[ParamSpec, ...]) -> dict[str, Any]:
    return {
        p.name: p.model_dump(mode="json", exclude={"name"}, exclude_none=True, exclude_unset=True)
        | {"type": p.type}
        for p in params
    }


class TaskSpec(Model):
    """A whole manifest."""

    also_known = ("container",)

    api_version: Literal["dicode/v1"] = Field(default="dicode/v1", alias="apiVersion")
    kind: Literal["Task"] = "Task"
    name: Line
    description: str = ""
    version: str | None = None
    author: str | None = None
    tags: tuple[Line, ...] = ()
    runtime: str
    trigger: TriggerSpec
    params: Annotated[
        tuple[ParamSpec, ...],
        BeforeValidator(read_params),
        PlainSerializer(_params_file_form, return_type=dict[str, Any], when_used="json"),
    ] = ()
    permissions: Permissions = Permissions()
    docker: ContainerSpec | None = None
    timeout: PositiveDuration | None = None
    """Seconds; None is no limit."""
    retry: RetrySpec | None = None
    concurrency: ConcurrencySpec | None = None
    priority: Priority = 0
    resources: ResourceSpec | None = None
    runs_on: tuple[Segment, ...] = ()
    mcp_port: Port | None = None
    mcp: McpSpec | None = None
    on_failure_chain: Annotated[FailureChain | None, BeforeValidator(_failure_chain)] = None
    notify: NotifySpec | None = None
    output_schema: OutputSchema | None = None
    provider: ProviderSpec | None = None
    budget: BudgetSpec | None = None
    run_inputs: RunInputsSpec | None = None
    retention: RetentionSpec | None = None
    api: ApiSpec | None = None
    auto_fix: AutoFixSpec | None = None

    @classmethod
    def prepare(cls, raw: Raw) -> Raw:
        """Read ``container`` as ``docker``, a null key as absent; add the timeout."""
        out = {key: value for key, value in raw.items() if value is not None or key == "timeout"}
        if "trigger" in raw:
            # An empty one is there: what it lacks is a kind.
            out.setdefault("trigger", {})
        container = out.pop("container", None)
        if container is not None:
            out["docker"] = container
        if "timeout" not in out and not is_endless(_runtime_of(out), _kind_of(out)):
            out["timeout"] = DEFAULT_TIMEOUT_S
        return out

    @classmethod
    def as_written(cls, raw: Raw, loc: KeyPath) -> KeyPath:
        """Tell faults of ``docker`` where they stand when it was written ``container``."""
        if loc[:1] == ("docker",) and raw.get("docker") is None and "container" in raw:
            return ("container", *loc[1:])
        return loc

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Check what needs more than one field."""
        _container_rules(raw, findings)
        _concurrency_rules(raw, findings)
        if raw.get("mcp_port") is not None and not _is_daemon(raw.get("trigger")):
            findings.add(
                ("mcp_port",), "belongs to a daemon task", "use 'trigger: {daemon: true}' or remove"
            )

    @field_validator("runtime")
    @classmethod
    def _runtime(cls, name: str, info: ValidationInfo) -> str:
        name = RUNTIME_ALIASES.get(name, name)
        context = cast("Mapping[str, Any] | None", info.context)
        if context is not None and "runtimes" in context:
            known = list(dict.fromkeys([*RUNTIMES, *context["runtimes"]]))
            if name not in known:
                fail("is not a runtime of this server", choices(name, known))
        return name


def _runtime_of(raw: Raw) -> Any:
    name = raw.get("runtime")
    return RUNTIME_ALIASES.get(name, name) if isinstance(name, str) else name


def _is_daemon(trigger: Any) -> bool:
    if isinstance(trigger, TriggerSpec):
        return trigger.kind == "daemon"
    return isinstance(trigger, Mapping) and cast(Raw, trigger).get("daemon") is True


def _kind_of(raw: Raw) -> str:
    return "daemon" if _is_daemon(raw.get("trigger")) else ""


def is_endless(runtime: Any, kind: str) -> bool:
    """Tell whether a run may last for ever when nothing is said: containers and daemons."""
    return kind == "daemon" or runtime in CONTAINER_RUNTIMES


def _container_rules(raw: Raw, findings: Findings) -> None:
    runtime = _runtime_of(raw)
    declared = [key for key in ("docker", "container") if raw.get(key) is not None]
    if len(declared) == 2:
        findings.add(("container",), "is another name of 'docker'", "keep one of the two")
    if runtime in CONTAINER_RUNTIMES and not declared:
        findings.add(
            ("docker",), f"is required for runtime {runtime}", "add 'docker: {image: …}' or a build"
        )
    if runtime in RUNTIMES and runtime not in CONTAINER_RUNTIMES and declared:
        findings.add(
            (declared[0],),
            f"has no effect with runtime {runtime}",
            "remove it, or use runtime docker or podman",
        )


def _concurrency_rules(raw: Raw, findings: Findings) -> None:
    concurrency = raw.get("concurrency")
    key = cast(Raw, concurrency).get("key") if isinstance(concurrency, Mapping) else None
    if not isinstance(key, str):
        return
    names = _declared_names(raw.get("params"))
    for placeholder in _PLACEHOLDER.findall(key):
        kind, _, name = placeholder.partition(".")
        if kind != "params" or name not in names:
            findings.add(
                ("concurrency", "key"),
                f"'${{{placeholder}}}' is not a declared parameter",
                "write ${params.NAME}; declared: " + (", ".join(names) or "none"),
            )


def _declared_names(params: Any) -> list[str]:
    if isinstance(params, Mapping):
        return list(cast(Raw, params))
    names: list[str] = []
    for item in cast("list[Any]", params) if isinstance(params, (list, tuple)) else []:
        if isinstance(item, ParamSpec):
            names.append(item.name)
        elif isinstance(item, Mapping):
            fields = cast(Raw, item)
            names.append(str(fields.get("name") or next(iter(fields), "")))
    return names


@dataclass(frozen=True, slots=True)
class Task:
    """A manifest in its place: what the registry holds and the runner runs."""

    id: str
    spec: TaskSpec
    folder: Path
    """Absolute."""
    script: Path | None
    """Absolute; None for containers."""
    digest: str
    """SHA-256 of folder and resolved spec, 64 hex digits."""
    source: str
    revision: str | None = None
    """The commit the folder came from, 40 hex digits."""
    code: str | None = field(default=None, compare=False, repr=False)
    """The script's text as it was loaded: what runs, whatever the file holds by then. None for
    containers and for a script that is large or not UTF-8, which is read when it runs."""
    manifest: Mapping[str, Any] | None = None
    """The effective manifest in the file's own form (durations as Go strings), for display."""

    @property
    def short_hash(self) -> str:
        """The first six digits, for log lines and listings."""
        return self.digest[:6]
