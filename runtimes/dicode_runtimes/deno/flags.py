"""The flags of ``deno run`` for what a manifest declares. Pure.

Flags alone do not hold: a link inside a granted folder is followed wherever it leads, and a program
that may be run does as it likes. They keep honest code within its word until a sandbox does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec.model import Permissions, ResourceSpec

ALWAYS = ("--quiet", "--no-prompt", "--no-config", "--no-lock", "--cached-only")
NOWHERE = "none.invalid"
OPEN_HOSTS = (
    "deno.land:443",
    "jsr.io:443",
    "esm.sh:443",
    "raw.esm.sh:443",
    "cdn.jsdelivr.net:443",
    "raw.githubusercontent.com:443",
    "gist.githubusercontent.com:443",
)
"""Where modules may come from without a word in the manifest: Deno's own list."""
OWN_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "TMPDIR",
    "DICODE_RUN_ID",
    "DICODE_TASK_ID",
    "DICODE_INSTANCE",
)

_LINK_LOCAL = ("169.254.0.0/16",)
_LOOPBACK = ("127.0.0.0/8",)
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
_NEVER = ("0.0.0.0/8",)
_LOOPBACK_6 = ("[::1]", "[::]")
_LOCAL_ENDINGS = (".local", ".internal", ".lan", ".home.arpa", ".localdomain", ".test", ".intranet")

Network = ipaddress.IPv4Network


@dataclass(frozen=True, slots=True)
class Imports:
    """What a script's modules come from besides its own files."""

    npm: bool = False
    remote: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """The paths a run needs beyond what its manifest grants."""

    folder: Path
    scratch: Path
    socket: Path
    cache: Path


def flags(
    permissions: Permissions, places: Places, imports: Imports, resources: ResourceSpec | None
) -> list[str]:
    """Give the flags between ``deno run`` and the file.

    Raises ``DicodeError(INVALID_SPEC)`` for a path that Deno's flags cannot hold.
    """
    return [
        *ALWAYS,
        *_modules(permissions, imports),
        *_files(permissions, places),
        *_network(permissions.net, places.socket),
        "--allow-env=" + ",".join([*OWN_VARIABLES, *(entry.name for entry in permissions.env)]),
        *_some("run", _programs(permissions.run, places.folder)),
        *_some("sys", permissions.sys),
        *_engine(resources),
    ]


def module_hosts(net: Iterable[str]) -> list[str]:
    """Give the hosts modules may be fetched from: the open ones and those the task may reach."""
    named = [host if _has_port(host) else f"{host}:443" for host in net if host != "*"]
    return list(dict.fromkeys([*OPEN_HOSTS, *named]))


def _modules(permissions: Permissions, imports: Imports) -> list[str]:
    out = [] if imports.npm else ["--no-npm"]
    if imports.remote:
        # Together with --cached-only this fetches nothing: what is not prepared is not there.
        return [*out, "--allow-import=" + ",".join(module_hosts(permissions.net))]
    return [*out, "--no-remote", f"--allow-import={NOWHERE}"]


def _files(permissions: Permissions, places: Places) -> list[str]:
    own = [places.scratch / "home", places.scratch / "tmp", places.socket]
    read = [places.folder, *own]
    write = [*own]
    for grant in permissions.fs:
        path = Path(grant.path)
        if "r" in grant.permission:
            read.append(path)
        if "w" in grant.permission:
            write.append(path)
    return [
        "--allow-read=" + _paths(read),
        "--allow-write=" + _paths(write),
        # What one task could write there, another would run.
        "--deny-write=" + _paths([places.cache]),
    ]


def _paths(paths: Sequence[Path]) -> str:
    both = dict.fromkeys(str(form) for path in paths for form in (path, path.resolve()))
    for path in both:
        if "," in path:
            raise DicodeError(
                Code.INVALID_SPEC,
                f"the path {path!r} holds a comma, which Deno's permissions cannot express",
                hint="rename the folder, or grant one above it",
            )
    return ",".join(both)


def _programs(run: Sequence[str], folder: Path) -> list[str]:
    """Programs by name are looked up on PATH; those with a slash start from the task folder."""
    return [str(folder / name) if "/" in name else name for name in run]


def _some(kind: str, names: Sequence[str]) -> list[str]:
    if "*" in names:
        return [f"--allow-{kind}"]
    return [f"--allow-{kind}={','.join(names)}"] if names else []


def _engine(resources: ResourceSpec | None) -> list[str]:
    if resources is None or resources.memory is None:
        return []
    megabytes = max(16, resources.memory // (1024 * 1024))
    return [f"--v8-flags=--max-old-space-size={megabytes}"]


# ── Network ──────────────────────────────────────────────────────────────────────────────────


def _network(net: Sequence[str], socket: Path) -> list[str]:
    channel = f"unix:{socket}"
    if "*" in net:
        return ["--allow-net", *_deny(net)]
    allow = "--allow-net=" + ",".join([channel, *(_bracketed(rule) for rule in net)])
    return [allow, *_deny(net)] if net else [allow]


def _bracketed(rule: str) -> str:
    return f"[{rule}]" if rule.count(":") > 1 and not rule.startswith("[") else rule


def _deny(net: Sequence[str]) -> list[str]:
    """Refuse addresses that are not public, wherever a name leads, unless they are listed.

    Deno compares after the name was looked up. A name that is local by its form counts as a
    listed private address. IPv6 can be refused by single addresses only.
    """
    hosts = [_host(rule) for rule in net]
    local = any(host == "localhost" or host.endswith(".localhost") for host in hosts)
    inside = any(_is_local_name(host) for host in hosts)
    ranges = [*_NEVER, *_LINK_LOCAL]
    ranges += [] if local else _LOOPBACK
    ranges += [] if inside else _PRIVATE
    listed = [address for host in hosts if (address := _address(host)) is not None]
    denied = [str(part) for text in ranges for part in _without(Network(text), listed)]
    single = [
        address
        for address in _LOOPBACK_6
        if not local and ipaddress.ip_address(address[1:-1]) not in listed
    ]
    return ["--deny-net=" + ",".join([*denied, *single])]


def _without(
    network: Network, listed: Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address]
) -> Iterator[Network]:
    parts = [network]
    for address in listed:
        if isinstance(address, ipaddress.IPv4Address):
            one = Network(address)
            parts = [
                rest
                for part in parts
                for rest in (part.address_exclude(one) if one.subnet_of(part) else [part])
            ]
    yield from parts


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_local_name(host: str) -> bool:
    if host in ("*", "localhost") or _address(host) is not None:
        return False
    return "." not in host or host.endswith(_LOCAL_ENDINGS)


def _host(rule: str) -> str:
    if rule.startswith("["):
        return rule[1:].partition("]")[0]
    return rule if rule.count(":") > 1 else rule.partition(":")[0].lower().removesuffix(".")


def _has_port(rule: str) -> bool:
    if rule.startswith("["):
        return not rule.endswith("]")
    return rule.count(":") == 1
