"""The uv program: where it is, and what it is told of the site's indexes and certificates."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from dicode_mcp.protocols import Health

_PASSED_ON = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX_STRATEGY",
    "UV_INSECURE_HOST",
    "UV_HTTP_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_EXCLUDE_NEWER",
    "UV_PRERELEASE",
    "UV_RESOLUTION",
    "UV_CONFIG_FILE",
    "UV_NO_CONFIG",
    "UV_OFFLINE",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_PYTHON_DOWNLOADS",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_PYPY_INSTALL_MIRROR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSL_CLIENT_CERT",
    "ALL_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "NETRC",
)
_OF_AN_INDEX = re.compile(r"UV_INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD)")
_FROM_PIP = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", ("UV_INDEX", "UV_EXTRA_INDEX_URL")),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS", ("UV_FIND_LINKS",)),
}
"""What pip calls it, what uv calls it, and what of uv's own goes before."""
_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_FILES = ("UV_CONFIG_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "NETRC")
_MISSING = "uv is not there: `pip install uv` into the server's environment"


class UvProgram:
    """Finds uv: ``binary`` if given, else that of the ``uv`` package."""

    def __init__(self, environ: Mapping[str, str], binary: str | None = None) -> None:
        self._environ = environ
        self._given = binary

    @cached_property
    def path(self) -> str | None:
        """The program, absolute."""
        return self._given or _packaged()

    @property
    def health(self) -> Health:
        """Tell whether it is there."""
        there = self.path is not None and os.access(self.path, os.X_OK)
        return Health(True) if there else Health(False, _MISSING)

    def environment(self, root: Path, path: str) -> dict[str, str]:
        """Give the whole environment of a uv process that keeps everything below ``root``."""
        base = os.path.dirname(os.path.realpath(sys.executable))
        return {
            # The server's own interpreter is the first to be asked whether it will do.
            "PATH": f"{base}{os.pathsep}{path}",
            "LANG": "C.UTF-8",
            "HOME": str(root / "home"),
            "UV_CACHE_DIR": str(root / "cache"),
            "UV_PYTHON_INSTALL_DIR": str(root / "python"),
            "UV_PYTHON_PREFERENCE": "system",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
            **self._config(),
            **self._site(),
        }

    def folders(self) -> tuple[Path, ...]:
        """Give what it reads of the user's: configuration, certificates, folders of wheels."""
        named = [self._environ.get(name, "") for name in _FILES]
        named += [url.removeprefix("file://") for url in self._urls() if not _remote(url)]
        config = self._user_config()
        named += [str(config / "uv")] if config else []
        return tuple(Path(n) for n in named if n.startswith("/") and os.path.exists(n))

    def hosts(self) -> tuple[str, ...]:
        """Give the hosts of the configured indexes and proxies, which may be private ones."""
        urls = [url for url in self._urls() if _remote(url)]
        proxies = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY")
        urls += [self._site().get(form, "") for n in proxies for form in (n, n.lower())]
        return tuple(dict.fromkeys(found for url in urls if (found := _host(url))))

    def _urls(self) -> list[str]:
        site = self._site()
        words = [word for name in _INDEXES for word in re.split(r"[\s,]+", site.get(name, ""))]
        # An index may have a name: name=url.
        return [re.sub(r"^[A-Za-z0-9_.-]+=(?=[a-z]+://|/)", "", word) for word in words if word]

    def _site(self) -> dict[str, str]:
        env = self._environ
        found = {n: env[n] for name in _PASSED_ON for n in (name, name.lower()) if env.get(n)}
        found |= {name: env[name] for name in env if _OF_AN_INDEX.fullmatch(name)}
        for theirs, (ours, before) in _FROM_PIP.items():
            if env.get(theirs) and not any(found.get(name) for name in before):
                found[ours] = env[theirs]
        if "UV_NATIVE_TLS" not in found and "UV_SYSTEM_CERTS" not in found:
            # Where the site has an authority of its own, it is in the system's store.
            found["UV_SYSTEM_CERTS"] = "1"
        return found

    def _config(self) -> dict[str, str]:
        config = self._user_config()
        return {"XDG_CONFIG_HOME": str(config)} if config else {}

    def _user_config(self) -> Path | None:
        home = self._environ.get("HOME")
        named = self._environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
        return Path(named) if named and os.path.isdir(f"{named}/uv") else None


def _remote(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _host(url: str) -> str | None:
    parts = urlsplit(url if "://" in url else f"http://{url}") if url else None
    if parts is None or not parts.hostname:
        return None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _packaged() -> str | None:
    try:
        from uv import find_uv_bin
    except ImportError:
        return None
    try:
        return find_uv_bin()
    except FileNotFoundError:
        return None
