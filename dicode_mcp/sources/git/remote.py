"""Which URLs are git remotes, and which of them this server may reach. Resolves no name."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from dicode_mcp.sources.git.failures import GitError, Reason

Scheme = Literal["https", "http", "ssh", "file"]

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_SCP = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^@/:\[\]]+):(?P<path>[^:].*)")
_MAX = 2000
_FORMS = "use https://HOST/PATH, ssh://git@HOST/PATH or git@HOST:PATH"


class Reach(StrEnum):
    """How far a ref may lead, by who named its URL."""

    PUBLIC = "public"
    """Anybody: https and ssh, to addresses of the internet only."""
    NETWORK = "network"
    """The user's dicode.yaml: private networks too."""
    ANY = "any"
    """The same with ``server.allow_local_git``: this machine, its files and plain http too."""


def reach_of(*, trusted: bool, allow_local: bool) -> Reach:
    """Give how far a ref may lead."""
    if not trusted:
        return Reach.PUBLIC
    return Reach.ANY if allow_local else Reach.NETWORK


@dataclass(frozen=True, slots=True)
class Remote:
    """A git URL taken apart. ``host`` is empty for files; ``shown`` may be displayed."""

    scheme: Scheme
    host: str
    port: int | None
    user: str | None
    path: str
    shown: str

    @property
    def base(self) -> str:
        """The URL of an http remote without a user, with its port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{host}{port}{self.path}"


def parse(url: str) -> Remote:
    """Take a URL apart. Raises ``GitError`` (NOT_TRUSTED) that never repeats the URL."""
    if not url or len(url) > _MAX or url.startswith("-") or _has_odd_character(url):
        raise _refused("is no git URL", _FORMS)
    if re.match(r"[A-Za-z0-9_+.-]*::", url):
        raise _refused("names a remote helper, which runs programs", _FORMS)
    if "://" not in url:
        return _scp(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("is no git URL", _FORMS) from None
    if parts.password is not None:
        raise _refused(
            "holds a password", "name a variable that holds the token: auth: {token_env: NAME}"
        )
    if parts.query or parts.fragment:
        raise _refused("has a '?' or '#'", "give the URL that `git clone` takes")
    if parts.scheme == "file":
        return _file(parts)
    return _network(parts, port)


def _network(parts: SplitResult, port: int | None) -> Remote:
    schemes: dict[str, Scheme] = {"https": "https", "http": "http", "ssh": "ssh"}
    scheme = schemes.get(parts.scheme)
    if scheme is None:
        raise _refused("has a scheme that is not fetched", _FORMS)
    host = _host(parts.hostname or "")
    user = _user(parts.username)
    if not parts.path.strip("/"):
        raise _refused("names no repository", _FORMS)
    at = f"{user}@" if user and scheme == "ssh" else ""
    name = f"[{host}]" if ":" in host else host
    shown = f"{scheme}://{at}{name}{f':{port}' if port else ''}{parts.path}"
    # An http path goes over the wire as it was written; ssh takes the plain one.
    path = unquote(parts.path) if scheme == "ssh" else parts.path
    _no_option(path.lstrip("/"))
    return Remote(scheme, host, port, user, path, shown)


def _scp(url: str) -> Remote:
    match = _SCP.fullmatch(url)
    if match is None:
        raise _refused("is no git URL", _FORMS)
    host, user = _host(match["host"]), _user(match["user"])
    _no_option(match["path"])
    return Remote("ssh", host, None, user, match["path"], url)


def _file(parts: SplitResult) -> Remote:
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise _refused("is no file URL", "use file:///ABSOLUTE/PATH")
    return Remote("file", "", None, None, path, f"file://{path}")


def _host(host: str) -> str:
    plain = host.lower()
    if ":" in plain:
        try:
            return str(ipaddress.IPv6Address(plain))
        except ValueError:
            raise _refused("has a host that is none", _FORMS) from None
    if len(plain) > 253 or not _HOST.fullmatch(plain):
        raise _refused("has a host that is none", _FORMS)
    return plain


def _user(user: str | None) -> str | None:
    if not user:
        return None
    if not _USER.fullmatch(user):
        raise _refused("has a user that is none", _FORMS)
    return user


def _no_option(path: str) -> None:
    if path.startswith("-") or "\0" in path:
        raise _refused("has a path that reads as an option", _FORMS)


def _has_odd_character(url: str) -> bool:
    return any(c <= " " or c in '\\"<>`' or not c.isprintable() for c in url)


def require(remote: Remote, reach: Reach) -> None:
    """Refuse a remote whose form alone is out of reach. Raises ``GitError`` (NOT_TRUSTED)."""
    if remote.scheme not in ("file", "http") or reach is Reach.ANY:
        return
    what = "files of this machine" if remote.scheme == "file" else "plain http"
    if reach is Reach.NETWORK:
        advice = "set server.allow_local_git: true in dicode.yaml to allow it there"
    else:
        advice = "use https or ssh; only dicode.yaml itself may name such a URL"
    raise GitError(
        Reason.NOT_TRUSTED, f"{remote.shown}: {what} may not be fetched from here", advice
    )


def require_address(remote: Remote, address: str, reach: Reach) -> None:
    """Refuse an address the remote's name leads to. Raises ``GitError`` (NOT_TRUSTED)."""
    if reach is Reach.ANY:
        return
    ip = _meant(address)
    if _is_own(ip):
        advice = "set server.allow_local_git: true in dicode.yaml to allow it there"
        if reach is Reach.PUBLIC:
            advice = "only dicode.yaml itself may name such a URL"
        message = f"{remote.shown}: the host leads to this machine or its link"
        raise GitError(Reason.NOT_TRUSTED, message, advice)
    if reach is Reach.PUBLIC and (not ip.is_global or ip.is_multicast):
        raise GitError(
            Reason.NOT_TRUSTED,
            f"{remote.shown}: the host leads to a private address",
            "only dicode.yaml itself may name a private repository server",
        )


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _meant(address: str) -> _Address:
    """Give the address that packets will reach: IPv4 inside IPv6 counts as IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip


def _is_own(ip: _Address) -> bool:
    return ip.is_loopback or ip.is_unspecified or ip.is_link_local


def _refused(what: str, hint: str) -> GitError:
    return GitError(Reason.NOT_TRUSTED, f"the URL {what}", hint)
