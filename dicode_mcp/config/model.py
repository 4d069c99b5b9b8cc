"""The values of ``dicode.yaml``: every key, its type, its default and its own rules."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError

from dicode_mcp.config.addresses import check_network, check_public_url
from dicode_mcp.config.oauth import OAuthConfig
from dicode_mcp.config.support import sentences
from dicode_mcp.spec.base import Findings, Model, Raw, checked
from dicode_mcp.spec.fields import (
    Duration,
    Flag,
    Line,
    Number,
    Positive,
    PositiveDuration,
    PositiveSize,
    Segment,
    TaskRef,
    Timezone,
)
from dicode_mcp.spec.giturl import check_git_url
from dicode_mcp.spec.ids import check_variable
from dicode_mcp.spec.model import FailureChain, NotifySpec, RunInputsSpec
from dicode_mcp.spec.taskset.documents import TaskSetDoc, inline_set
from dicode_mcp.spec.yaml12 import Document

VariableName = Annotated[str, AfterValidator(checked(check_variable))]


class SourceAuth(Model):
    """How a git source proves who it is; the variables and files are read when it fetches."""

    token_env: VariableName | None = None
    ssh_key: Line | None = None
    username: Line | None = None
    host_keys: Literal["strict", "accept-new"] = "strict"
    known_hosts: Line | None = None


class SourceConfig(Model):
    """Where tasks come from. ``path`` is absolute for ``local``, inside the repository for git."""

    name: Segment | None = None
    type: Literal["local", "git"]
    path: Line | None = None
    url: Annotated[Line, AfterValidator(check_git_url)] | None = None
    branch: Line | None = None
    tag: Line | None = None
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    poll_interval: PositiveDuration = 30.0
    auth: SourceAuth | None = None
    push_secret_env: VariableName | None = None
    depth: Positive | None = None
    trust: Literal["auto", "review"] = "auto"
    tags: tuple[Line, ...] = ()
    max_files: Positive = 100_000
    max_file_size: PositiveSize = 64 * 2**20
    max_total_size: PositiveSize = 4 * 2**30

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want the keys of the source's type and no other's."""
        kind = raw.get("type")
        if kind == "local":
            if not raw.get("path"):
                findings.add(("path",), "is required for a local source", "add 'path: FOLDER'")
            for key in _GIT_ONLY:
                if raw.get(key) is not None:
                    findings.add((key,), "belongs to a git source", "remove it or use type: git")
        if kind == "git":
            if not raw.get("url"):
                findings.add(("url",), "is required for a git source", "add 'url: …'")
            _one_version(raw, findings)

    @property
    def label(self) -> str:
        """The source's name: as given, else the last part of its path or URL."""
        return self.name or _last_part((self.url if self.type == "git" else self.path) or "")


def _one_version(raw: Raw, findings: Findings) -> None:
    chosen = [key for key in ("branch", "tag", "commit") if raw.get(key) is not None]
    if len(chosen) > 1:
        findings.add((chosen[1],), f"stands beside {chosen[0]}", "keep one of the two")


def _last_part(location: str) -> str:
    return location.rstrip("/").replace(":", "/").rpartition("/")[2].removesuffix(".git")


_GIT_ONLY = (
    "url",
    "branch",
    "tag",
    "commit",
    "poll_interval",
    "auth",
    "push_secret_env",
    "depth",
)


class DatabaseConfig(Model):
    """Where state is kept. ``url_env`` names the variable with a PostgreSQL URL."""

    type: Literal["sqlite", "postgres"] = "sqlite"
    url_env: VariableName | None = None

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want an address for PostgreSQL, and none for SQLite."""
        if raw.get("type") == "postgres" and raw.get("url_env") is None:
            findings.add(
                ("url_env",), "is required for postgres", "name the variable that holds the URL"
            )
        if raw.get("type", "sqlite") == "sqlite" and raw.get("url_env") is not None:
            findings.add(("url_env",), "belongs to type: postgres", "remove it")


def _provider(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class SecretProvider(Model):
    """One link of the secrets chain: ``local``, ``env`` or a provider task."""

    type: Literal["local", "env", "task"]
    task: TaskRef | None = None
    prefix: str = ""
    """For ``env``: put before the key to make the variable's name."""

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want a task for type task alone."""
        if raw.get("type") == "task" and not raw.get("task"):
            findings.add(("task",), "is required for type task", "add 'task: ID'")
        if raw.get("type") in ("local", "env") and raw.get("task"):
            findings.add(("task",), "belongs to type: task", "remove it")


class SecretsConfig(Model):
    """The secrets chain, asked in order."""

    providers: tuple[Annotated[SecretProvider, BeforeValidator(_provider)], ...] = (
        SecretProvider(type="local"),
    )


class ServerConfig(Model):
    """The HTTP side. ``auth`` wants keys of everyone, the owner's own processes too."""

    port: Annotated[int, Field(ge=0, le=65535, strict=True)] = 8080
    """0 picks a free one."""
    host: Line = "127.0.0.1"
    name: Segment | None = None
    labels: tuple[Segment, ...] = ()
    auth: Flag = False
    public_url: (
        Annotated[Line, Field(pattern="^https?://"), AfterValidator(checked(check_public_url))]
        | None
    ) = None
    allowed_hosts: tuple[Line, ...] = ()
    allowed_origins: tuple[Line, ...] = ()
    trusted_proxies: tuple[Annotated[Line, AfterValidator(checked(check_network))], ...] = ()
    max_body: PositiveSize = 5 * 2**20
    allow_local_git: Flag = False
    oauth: OAuthConfig | None = None

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want to know for whom a token must be: one for another server is none for this."""
        oauth = raw.get("oauth")
        if not isinstance(oauth, Mapping) or raw.get("public_url"):
            return
        if not cast("Mapping[str, Any]", oauth).get("audience"):
            findings.add(
                ("oauth", "audience"),
                "is required without server.public_url",
                "add what the provider writes into `aud` of this server's tokens",
            )


class RetentionConfig(Model):
    """How long runs are kept: by age in seconds and by number per task."""

    age: PositiveDuration = 30 * 86400.0
    runs: Positive = 1000


def _chain(value: Any) -> Any:
    return {"task": value} if isinstance(value, str) else value


class DefaultsConfig(Model):
    """What tasks get that do not say otherwise."""

    timeout: PositiveDuration | None = None
    timezone: Timezone | None = None
    on_failure_chain: Annotated[FailureChain | None, BeforeValidator(_chain)] = None
    notify: NotifySpec | None = None
    run_inputs: RunInputsSpec | None = None
    retention: RetentionConfig = RetentionConfig()


class RuntimeConfig(Model):
    """One runtime: whether it is offered and the program it uses."""

    enabled: Flag = True
    path: Line | None = None


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class ExecutionConfig(Model):
    """How runs are carried out. ``drain`` is how long a stop waits for them, in seconds.

    ``max_memory`` (bytes), ``max_pids`` (processes and threads) and ``max_cpu`` (processors) are
    the most one run gets. ``standby`` is how many processes may wait for the next runs of tasks
    that run often, 0 for none.
    """

    max_concurrent_runs: Positive = Field(default_factory=lambda: 2 * (os.cpu_count() or 1))
    sandbox: Literal["strict", "best_effort", "off"] = "strict"
    max_memory: PositiveSize = Field(default_factory=_half_of_memory)
    max_pids: Positive = 512
    max_cpu: Annotated[Number, Field(gt=0)] | None = None
    standby: Annotated[int, Field(ge=0, le=64, strict=True)] = 4
    drain: Duration = 20.0
    max_log_bytes: PositiveSize = 10 * 2**20
    max_log_lines: Positive = 100_000


class NotificationsConfig(Model):
    """Who is told of what, unless a task says otherwise. ``reminder`` is seconds, 0 for none."""

    on_success: Flag = False
    on_failure: Flag = True
    task: TaskRef | None = None
    reminder: Duration = 86400.0


class AiConfig(Model):
    """The model for bundled tasks: any OpenAI-compatible endpoint."""

    base_url: Annotated[Line, Field(pattern="^https?://")] | None = None
    model: Line | None = None
    api_key_env: VariableName | None = None


def _registry(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return {"path": value} if value.startswith("/") else {"url": value}


class RegistryConfig(Model):
    """A TaskSet that is searched for tasks to install, in a repository or in a folder.

    ``path`` is inside the repository when there is a ``url``, else absolute.
    """

    url: Annotated[Line, AfterValidator(check_git_url)] | None = None
    path: Line | None = None
    name: Segment | None = None
    branch: Line | None = None
    tag: Line | None = None
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    auth: SourceAuth | None = None

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want a place, and the keys of a repository only beside a URL."""
        url, path = raw.get("url"), raw.get("path")
        if url is None and path is None:
            findings.add((), "needs a url or a path", "add 'url: …', or 'path: FOLDER'")
        for key in ("branch", "tag", "commit", "auth") if url is None else ():
            if raw.get(key) is not None:
                findings.add((key,), "belongs to a registry with a url", "remove it or add a url")
        if url is not None and isinstance(path, str) and _leaves(path):
            findings.add(("path",), "leaves the repository", "write it relative to its root")
        _one_version(raw, findings)

    @property
    def label(self) -> str:
        """The registry's name: as given, else the last part of its URL or path."""
        return self.name or _last_part(self.url or self.path or "")


def _leaves(path: str) -> bool:
    return path.startswith(("/", "~")) or ".." in path.split("/")


class BundledConfig(Model):
    """The tasks that come with the server. ``overrides`` are as in a TaskSet, by task name."""

    enabled: Flag = True
    overrides: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)


def _bundled(value: Any) -> Any:
    return {"enabled": value} if isinstance(value, bool) else value


class WorkersConfig(Model):
    """Work on many machines. ``lease`` is seconds without a heartbeat until take-over."""

    dispatcher: Literal["local", "cluster"] = "local"
    lease: PositiveDuration = 30.0


class InlineSet(Model):
    """``spec`` of a TaskSet written in the configuration itself; read by what reads TaskSets."""

    defaults: Mapping[str, Any] = Field(default_factory=dict)
    entries: Mapping[str, Any] = Field(default_factory=dict)


class Config(Model):
    """A whole configuration, every path absolute."""

    data_dir: Path
    sources: tuple[SourceConfig, ...] = ()
    database: DatabaseConfig = DatabaseConfig()
    secrets: SecretsConfig = SecretsConfig()
    server: ServerConfig = ServerConfig()
    defaults: DefaultsConfig = DefaultsConfig()
    runtimes: Mapping[str, RuntimeConfig] = Field(default_factory=dict)
    execution: ExecutionConfig = Field(default_factory=ExecutionConfig)
    notifications: NotificationsConfig = NotificationsConfig()
    ai: AiConfig = AiConfig()
    registries: tuple[Annotated[RegistryConfig, BeforeValidator(_registry)], ...] = ()
    bundled: Annotated[BundledConfig, BeforeValidator(_bundled)] = Field(
        default_factory=BundledConfig
    )
    workers: WorkersConfig = WorkersConfig()
    log_level: Literal["debug", "info", "warn", "error"] = "info"
    spec: InlineSet | None = None

    _file: Path | None = PrivateAttr(default=None)
    _entries: TaskSetDoc | None = PrivateAttr(default=None)
    _overrides: Document | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """The file that was read; None when there is none."""
        return self._file

    @property
    def entries(self) -> TaskSetDoc | None:
        """The set that ``spec`` is; None when there is none. Raises ``SpecError``."""
        if self._entries is not None or self.spec is None:
            return self._entries
        name = self._file.name if self._file else "dicode.yaml"
        defaults, entries = dict(self.spec.defaults), dict(self.spec.entries)
        return inline_set(Document(name, defaults), Document(name, entries))

    @property
    def bundled_overrides(self) -> Document:
        """What is overridden of bundled tasks, by name, with its lines where they are known."""
        name = self._file.name if self._file else "dicode.yaml"
        return self._overrides or Document(name, dict(self.bundled.overrides))

    def read_from(
        self,
        file: Path,
        entries: TaskSetDoc | None = None,
        overrides: Document | None = None,
    ) -> Config:
        """Give the same configuration, knowing its file and what is in it, line by line."""
        out = self.model_copy()
        out._file = file
        out._entries = entries
        out._overrides = overrides
        return out

    @classmethod
    def prepare(cls, raw: Raw) -> Raw:
        """Read a null key as absent."""
        return {key: value for key, value in raw.items() if value is not None}

    @classmethod
    def rules(cls, raw: Raw, findings: Findings) -> None:
        """Want each name of a source, and of a registry, once."""
        for key, label in (("sources", _source_label), ("registries", _registry_label)):
            given = raw.get(key)
            items = cast("Sequence[Any]", given) if isinstance(given, (list, tuple)) else ()
            _names_once(key, items, label, findings)

    @property
    def withheld_variables(self) -> frozenset[str]:
        """The variables that hold the server's own credentials; no task ever gets them."""
        named: list[str | None] = [self.database.url_env]
        for source in self.sources:
            named += [source.push_secret_env, source.auth.token_env if source.auth else None]
        named += [registry.auth.token_env for registry in self.registries if registry.auth]
        return frozenset(name for name in named if name)

    def not_in_force(self) -> list[str]:
        """Tell, in sentences, what is accepted here and has no effect on this build."""
        return sentences(self)


def _names_once(
    key: str, items: Sequence[Any], label: Callable[[Any], str], findings: Findings
) -> None:
    seen: set[str] = set()
    for index, item in enumerate(items):
        try:
            name = label(item)
        except ValidationError:
            continue
        if name in seen:
            what = f"is the second of the {key} named '{name}'"
            findings.add((key, index), what, "give it a 'name:'")
        seen.update((name,) if name else ())


def _source_label(source: Any) -> str:
    return SourceConfig.model_validate(source).label


def _registry_label(registry: Any) -> str:
    return RegistryConfig.model_validate(_registry(registry)).label
