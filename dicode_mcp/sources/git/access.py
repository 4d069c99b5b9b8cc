"""Turns a ref into what the worker needs to reach it: credentials, proxy, bounds.

The only place of the server's side that reads a token.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dicode_mcp.protocols import GitAuth, GitLimits, GitRef
from dicode_mcp.sources.git.failures import GitError, Reason
from dicode_mcp.sources.git.jobs import Access, Bounds, Want
from dicode_mcp.sources.git.remote import Remote, parse, reach_of, require

_USER = "git"
_MEMORY = 512 * 2**20


def want_of(ref: GitRef) -> Want:
    """Give which commit a ref means."""
    if ref.commit:
        return Want("commit", ref.commit)
    return Want("tag", ref.tag) if ref.tag else Want("branch", ref.branch)


def bounds_of(limits: GitLimits) -> Bounds:
    """Give what a job for a ref may take; memory grows with the largest file it has to hold."""
    return Bounds(
        max_files=limits.max_files,
        max_file_size=limits.max_file_size,
        max_total_size=limits.max_total_size,
        max_depth=limits.max_depth,
        memory=max(_MEMORY, 4 * limits.max_file_size),
    )


def access_to(ref: GitRef, environ: Mapping[str, str], *, allow_local: bool) -> Access:
    """Give how to reach a ref's remote; the token is read now. Raises ``GitError``."""
    remote = parse(ref.url)
    reach = reach_of(trusted=ref.trusted, allow_local=allow_local)
    require(remote, reach)
    auth = ref.auth or GitAuth()
    if not ref.trusted and (auth.token_env or auth.ssh_key or auth.known_hosts):
        # Whoever writes such a ref chooses the host too, and would be sent what it names.
        raise GitError(
            Reason.NOT_TRUSTED,
            f"{remote.shown}: the ref names credentials, and is not the user's own",
            "name this URL with its auth in dicode.yaml or in a set of your own",
        )
    token = _token(remote, auth, environ)
    return Access(
        url=ref.url,
        reach=reach,
        username=auth.username or remote.user or (_USER if token else None),
        password=token,
        ssh_key=_file(remote, auth.ssh_key, environ),
        host_keys=auth.host_keys,
        known_hosts=_file(remote, auth.known_hosts, environ),
        proxy=_proxy(remote, environ),
        ca_file=environ.get("GIT_SSL_CAINFO") or None,
    )


def _token(remote: Remote, auth: GitAuth, environ: Mapping[str, str]) -> str | None:
    if auth.token_env is None or remote.scheme in ("ssh", "file"):
        return None
    token = environ.get(auth.token_env, "").strip()
    if token:
        return token
    raise GitError(
        Reason.SECRET_MISSING,
        f"{remote.shown}: the variable {auth.token_env}, which holds its token, is not set",
        "set it where the server starts, then restart the server",
    )


def _file(remote: Remote, path: str | None, environ: Mapping[str, str]) -> str | None:
    if path is None or remote.scheme != "ssh":
        return None
    home = environ.get("HOME", "")
    full = home + path[1:] if path.startswith("~/") and home else path
    if os.access(full, os.R_OK) and Path(full).is_file() and '"' not in full:
        return full
    raise GitError(
        Reason.SECRET_MISSING,
        f"{remote.shown}: the file {full} is not there or cannot be read",
        "correct auth.ssh_key or auth.known_hosts, or give the server's user read access",
    )


def _proxy(remote: Remote, environ: Mapping[str, str]) -> str | None:
    """Give the proxy that the server's environment names for a remote."""
    if remote.scheme not in ("https", "http"):
        return None
    named = {name.lower(): value.strip() for name, value in environ.items() if value.strip()}
    if _goes_directly(remote.host, named.get("no_proxy", "")):
        return None
    found = named.get(f"{remote.scheme}_proxy") or named.get("all_proxy")
    return found if found and found.startswith(("http://", "https://")) else None


def _goes_directly(host: str, exceptions: str) -> bool:
    for item in exceptions.lower().split(","):
        name = item.strip().lstrip(".").partition(":")[0]
        if name == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
    return False
