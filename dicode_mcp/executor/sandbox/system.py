"""What of the machine every caged process sees: libraries, certificates, a few devices.

Read once; the paths of programs are apart, since what may be run need not be there at all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

PROGRAM_FOLDERS = (
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/bin",
    "/sbin",
    "/etc/alternatives",
)
_LIBRARY_FOLDERS = (
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libx32",
    "/usr/libexec",
    "/usr/share",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/share",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
)
_ETC = (
    "ld.so.cache",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ssl/cert.pem",
    "pki/tls/certs",
    "pki/tls/cert.pem",
    "pki/tls/openssl.cnf",
    "pki/ca-trust/extracted",
    "ca-certificates/extracted",
    "crypto-policies",
    "localtime",
    "os-release",
)
_ETC_TEXTS = (
    "resolv.conf",
    "gai.conf",
    "host.conf",
    "ld.so.conf",
    "mime.types",
    "protocols",
    "services",
    "timezone",
)
"""Small files of text: copied, which is quicker than to show them one by one."""
_LONGEST_TEXT = 128 * 1024
DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
RESOLVER_FILE = "/etc/resolv.conf"
RESOLVER = "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n"
"""For a run with a gate, whose stub is there."""
_SWITCH = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"


@dataclass(frozen=True, slots=True)
class System:
    """The places that exist here, links not followed. ``programs`` are folders of programs."""

    places: tuple[str, ...]
    programs: tuple[str, ...]
    texts: Texts


class Texts:
    """The small files of ``/etc`` as they are now: read again when one has changed."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._known: dict[str, tuple[tuple[int, int], str]] = {}

    def all(self) -> dict[str, str]:
        """Give the texts by path."""
        found = ((path, self._read(path)) for path in self._paths)
        return {path: text for path, text in found if text is not None}

    def _read(self, path: str) -> str | None:
        try:
            stat = os.stat(path)
            mark = (stat.st_mtime_ns, stat.st_size)
            known = self._known.get(path)
            if known is not None and known[0] == mark:
                return known[1]
            if stat.st_size > _LONGEST_TEXT:
                return None
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError:
            return None
        self._known[path] = (mark, text)
        return text


def look() -> System:
    """See what this machine has."""
    wanted = [*_LIBRARY_FOLDERS, *(f"/etc/{name}" for name in _ETC)]
    texts = Texts([f"/etc/{name}" for name in _ETC_TEXTS])
    return System(_there(wanted), _there(PROGRAM_FOLDERS), texts)


def _there(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if os.path.lexists(path))


def own_entries(system: System, uid: int, gid: int, home: str) -> list[list[object]]:
    """Give the parts of a tree that are made and not shown: accounts, names, devices."""
    return [
        ["file", "/etc/passwd", f"task:x:{uid}:{gid}::{home}:/bin/sh\n" + _nobody(uid, "::/:")],
        ["file", "/etc/group", f"task:x:{gid}:\n"],
        ["file", "/etc/hosts", HOSTS],
        ["file", "/etc/nsswitch.conf", _SWITCH],
        *(["file", path, text] for path, text in system.texts.all().items()),
        *(["link", path, target] for path, target in _DEVICE_LINKS.items()),
    ]


def _nobody(uid: int, rest: str) -> str:
    return "" if uid == 65534 else f"nobody:x:65534:65534{rest}/usr/sbin/nologin\n"
