"""``task.yaml`` as frozen values: every field of SPEC 1, its type and its own rules.

Rules that need more than the document (files beside it, the environment, other tasks) live in
``loader``. Positions and wording of errors live in ``problems``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """Frozen, and strict: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SecretRef(Model):
    """A key of the secrets store, by name."""

    secret: str


class ChainTrigger(Model):
    """Start after other tasks end. ``sources`` are ids as written."""

    sources: tuple[str, ...] = Field(alias="from")
    join: Literal["all", "any"] = "any"
    on: Literal["success", "failure", "always"] = "success"


class TriggerSpec(Model):
    """What starts the task: exactly one of the first five is set."""

    cron: str | None = None
    webhook: str | None = None
    manual: bool | None = None
    chain: ChainTrigger | None = None
    daemon: bool | None = None

    timezone: str | None = None
    catchup: Literal["skip", "one", "all"] = "one"
    jitter: float | None = None
    """Seconds."""

    webhook_secret: str | SecretRef | None = None
    auth: bool = False
    methods: tuple[str, ...] = ("POST",)
    mode: Literal["sync", "async"] = "sync"

    restart: Literal["always", "on-failure", "never"] = "always"

    @property
    def kind(self) -> str:
        """``cron`` ``webhook`` ``manual`` ``chain`` or ``daemon``."""
        for name in ("cron", "webhook", "chain", "daemon"):
            if getattr(self, name):
                return name
        return "manual"


class ParamSpec(Model):
    """One declared parameter; ``type`` decides how given values are read."""

    name: str
    description: str = ""
    type: Literal["string", "number", "boolean", "cron"] = "string"
    default: Any = None
    required: bool = False
    enum: tuple[Any, ...] | None = None


class IfMissing(Model):
    """What to run when an environment entry has no value."""

    task: str


class EnvEntry(Model):
    """One environment variable of the task. Exactly one origin is set.

    ``source`` is ``host`` (``key`` is a variable of the server), ``literal`` (``value``),
    ``secret`` (``key`` is a secret's name) or ``task`` (``key`` is a provider task's id).
    """

    name: str
    source: Literal["host", "literal", "secret", "task"]
    key: str | None = None
    value: str | None = None
    optional: bool = False
    if_missing: IfMissing | None = None


class FsGrant(Model):
    """A path the task may use; absolute once loaded."""

    path: str
    permission: Literal["r", "w", "rw"] = "r"


class DicodeGrants(Model):
    """What the task may ask of the server; everything is denied by default."""

    tasks: tuple[str, ...] = ()
    mcp: tuple[str, ...] = ()
    list_tasks: bool = False
    get_runs: bool = False
    secrets_write: bool = False
    runs_replay: bool = False
    tasks_test: bool = False
    sources_set_dev_mode: bool = False
    git_commit_push: bool = False
    authoring: bool = False


class Permissions(Model):
    """What the task may do. ``net`` and ``run`` hold hosts and executables, or ``*``."""

    env: tuple[EnvEntry, ...] = ()
    fs: tuple[FsGrant, ...] = ()
    net: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    sys: tuple[str, ...] = ()
    dicode: DicodeGrants = DicodeGrants()


class ContainerBuild(Model):
    """How to build the image; both paths are relative to the task folder."""

    dockerfile: str = "Dockerfile"
    context: str = "."


class ContainerSpec(Model):
    """The container of a docker or podman task."""

    image: str | None = None
    build: ContainerBuild | None = None
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    working_dir: str | None = None
    env_vars: Mapping[str, str] = Field(default_factory=dict)
    pull_policy: Literal["missing", "always", "never"] = "missing"
    network: str | None = None
    user: str | None = None
    cpus: float | None = None
    memory: int | None = None
    """Bytes."""
    gpus: str | None = None


class RetrySpec(Model):
    """When and how often to try again. Times are seconds."""

    attempts: int = 1
    backoff: float = 1.0
    max_backoff: float = 300.0
    on: tuple[Literal["failure", "timeout", "lost"], ...] = ("failure", "timeout", "lost")


class ConcurrencySpec(Model):
    """How many runs of the task at once; ``overlap`` None means the trigger's own default."""

    limit: int = 1
    key: str | None = None
    overlap: Literal["queue", "skip", "replace", "allow"] | None = None


class ResourceSpec(Model):
    """Limits of one run: ``memory`` in bytes, ``cpu`` in cores, ``pids`` a count."""

    memory: int | None = None
    cpu: float | None = None
    pids: int | None = None


class McpSpec(Model):
    """Whether and how the task is an MCP tool of its own."""

    expose: bool = False
    tool_name: str | None = None
    read_only: bool = False
    destructive: bool = True


class FailureChain(Model):
    """The task that runs when this one fails; an empty ``task`` switches the default off."""

    task: str
    params: Mapping[str, Any] = Field(default_factory=dict)


class NotifySpec(Model):
    """Notification flags; None means the server's default."""

    on_success: bool | None = None
    on_failure: bool | None = None


class ProviderSpec(Model):
    """The task resolves secrets for others. ``cache_ttl`` is seconds."""

    cache_ttl: float = 0


class BudgetSpec(Model):
    """What a day may cost; reached, the task pauses."""

    runs: int | None = None
    cpu_seconds: float | None = None
    tokens: int | None = None


class RunInputsSpec(Model):
    """Whether inputs are kept for replay; ``retention`` in seconds."""

    enabled: bool = True
    retention: float | None = None


class AutoFixSpec(Model):
    """Opt-in repair by an agent when the task fails."""

    enabled: bool = False
    max_iterations: int = 3
    max_tokens: int | None = None
    timeout: float | None = None
    cooldown: float | None = None


class TaskSpec(Model):
    """A whole manifest."""

    api_version: Literal["dicode/v1"] = Field(default="dicode/v1", alias="apiVersion")
    kind: Literal["Task"] = "Task"
    name: str
    description: str = ""
    version: str | None = None
    author: str | None = None
    tags: tuple[str, ...] = ()
    runtime: str
    trigger: TriggerSpec
    params: tuple[ParamSpec, ...] = ()
    permissions: Permissions = Permissions()
    docker: ContainerSpec | None = None
    timeout: float | None = None
    """Seconds; None is no limit."""
    retry: RetrySpec | None = None
    concurrency: ConcurrencySpec | None = None
    resources: ResourceSpec | None = None
    runs_on: tuple[str, ...] = ()
    mcp_port: int | None = None
    mcp: McpSpec | None = None
    on_failure_chain: FailureChain | None = None
    notify: NotifySpec | None = None
    output_schema: Mapping[str, Any] | None = None
    provider: ProviderSpec | None = None
    budget: BudgetSpec | None = None
    run_inputs: RunInputsSpec | None = None
    auto_fix: AutoFixSpec | None = None


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
    manifest: Mapping[str, Any] | None = None
    """The effective manifest in the file's own form (durations as Go strings), for display."""

    @property
    def short_hash(self) -> str:
        """The first six digits, for log lines and listings."""
        return self.digest[:6]
