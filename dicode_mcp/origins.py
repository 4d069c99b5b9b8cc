"""The configured sources: what each fetches, shows and listens for, and what stands in for it.

It reads the configuration and makes sources; nothing here runs.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from dicode_mcp.config import Config, SourceConfig
from dicode_mcp.config.model import RegistryConfig, SourceAuth
from dicode_mcp.protocols import GitAuth, GitLimits, GitRef, Source, SourceOverrides
from dicode_mcp.service.entry_homes import OwnSet
from dicode_mcp.service.pushes import PushHook
from dicode_mcp.service.shelves import ShelfPlace
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.sources.git.source import GitSource
from dicode_mcp.sources.inline import InlineSource
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.sources.switch import SwitchableSource
from dicode_mcp.sources.working.copies import WorkingCopies
from dicode_mcp.sources.working.shown import WorkTreeSource
from dicode_mcp.spec.taskset.lock import Vouched


def git_refs(config: Config) -> dict[str, GitRef]:
    """Give what the git sources fetch, by name."""
    return {source.label: _ref(source) for source in config.sources if source.type == "git"}


def git_sources(
    config: Config,
    checkouts: GitCheckouts,
    environ: Mapping[str, str],
    overrides: Mapping[str, SourceOverrides],
) -> dict[str, GitSource]:
    """Give the git sources by name, each at the commit it was pinned to."""
    return {
        source.label: GitSource(
            source.label,
            _ref(source),
            checkouts,
            namespace=source.name or "",
            start=(source.path or "").strip("/"),
            pin=overrides.get(source.label, SourceOverrides()).pin,
            unset_secret=_unset_secret(source, environ),
        )
        for source in config.sources
        if source.type == "git"
    }


def push_hooks(config: Config, environ: Mapping[str, str]) -> dict[str, PushHook]:
    """Give the push webhooks whose secret is set, by source."""
    hooks: dict[str, PushHook] = {}
    for source in config.sources:
        secret = environ.get(source.push_secret_env or "", "").strip()
        if source.url and secret:
            hooks[source.label] = PushHook(source.url, secret)
    return hooks


def registry_places(config: Config) -> list[ShelfPlace]:
    """Give where the registries are, in order."""
    return [
        ShelfPlace(registry.label, registry.path or "", _registry_ref(registry))
        for registry in config.registries
    ]


def _registry_ref(registry: RegistryConfig) -> GitRef | None:
    if registry.url is None:
        return None
    return GitRef(
        url=registry.url,
        branch=registry.branch or "main",
        tag=registry.tag,
        commit=registry.commit,
        auth=_auth(registry.auth),
        trusted=True,
    )


def _auth(auth: SourceAuth | None) -> GitAuth | None:
    if auth is None:
        return None
    return GitAuth(auth.token_env, auth.ssh_key, auth.username, auth.host_keys, auth.known_hosts)


def _ref(source: SourceConfig) -> GitRef:
    return GitRef(
        url=source.url or "",
        branch=source.branch or "main",
        tag=source.tag,
        commit=source.commit,
        auth=_auth(source.auth),
        poll_interval_s=source.poll_interval,
        depth=source.depth,
        trusted=True,
        limits=GitLimits(source.max_files, source.max_file_size, source.max_total_size),
    )


def _unset_secret(source: SourceConfig, environ: Mapping[str, str]) -> str | None:
    name = source.push_secret_env
    return name if name and not environ.get(name, "").strip() else None


def all_sources(config: Config, from_git: Mapping[str, Source]) -> list[Source]:
    """Make the sources; ids begin with a source's name only when the user gave it one."""
    return [
        from_git[source.label]
        if source.type == "git"
        else LocalSource(source.label, Path(source.path or ""), namespace=source.name or "")
        for source in config.sources
    ]


def inline_source(config: Config) -> InlineSource | None:
    """Make the source of the entries in the configuration itself, when there are any."""
    if config.entries is None or not config.entries.entries:
        return None
    return InlineSource(config.file or Path.cwd() / "dicode.yaml")


def own_source(own: OwnSet) -> LocalSource:
    """Make the source of what was installed without a TaskSet of the user's."""
    return LocalSource(own.name, own.file, namespace=own.name)


def vouches(config: Config) -> Vouched:
    """Tell which URLs may lead anywhere: those of dicode.yaml, all with ``allow_local_git``."""
    named = {place.url for place in (*config.sources, *config.registries)} - {None}
    return lambda url: config.server.allow_local_git or url in named


def host_names(config: Config) -> frozenset[str]:
    """Give what ``hosts`` of an entry may call this server: its name, the machine's, its labels."""
    own = {config.server.name, socket.gethostname()}
    return frozenset({name for name in own if name} | set(config.server.labels))


def work_tree(config: Config, name: str, folder: Path) -> WorkTreeSource:
    """Make what a git source shows of a clone: it begins where the source does."""
    starts = {source.label: source.path or "" for source in config.sources}
    return WorkTreeSource(name, folder, starts.get(name, "").strip("/"))


def switchable(
    config: Config,
    sources: Iterable[Source],
    overrides: Mapping[str, SourceOverrides],
    copies: WorkingCopies,
) -> dict[str, SwitchableSource]:
    """Give the sources by name, each as what was decided for it says."""
    found: dict[str, SwitchableSource] = {}
    for source in sources:
        decided = overrides.get(source.name, SourceOverrides())
        shown: Source | None = None
        if decided.dev is not None and decided.dev.local_path is not None:
            shown = LocalSource(source.name, Path(decided.dev.local_path))
        elif decided.dev is not None and decided.dev.branch is not None:
            folder = copies.folder_of(source.name, decided.dev.branch)
            shown = work_tree(config, source.name, folder)
        found[source.name] = SwitchableSource(source, decided, shown)
    return found
