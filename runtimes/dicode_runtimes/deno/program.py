"""The deno program on this machine: where it is, whether it works, what it is told of the site."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from dicode_mcp import children
from dicode_mcp.protocols import Health

OLDEST = (2, 5)
_CERTIFICATES = (
    "SSL_CERT_FILE",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
_PORTS = {"http": 80, "socks5": 1080, "socks5h": 1080}
_MISSING = (
    "deno is not there: `pip install deno` into the server's environment where there is a wheel "
    "for this machine, or put a deno binary on the server's PATH"
)


class DenoProgram:
    """Finds deno: ``binary`` if given, else that of the ``deno`` package, else on PATH."""

    def __init__(self, environ: Mapping[str, str], binary: str | None = None) -> None:
        self._environ = environ
        self._given = binary

    @cached_property
    def path(self) -> str | None:
        """The program, absolute."""
        if self._given is not None:
            return self._given
        return _packaged() or shutil.which("deno", path=self._environ.get("PATH", os.defpath))

    @cached_property
    def health(self) -> Health:
        """Whether it starts and is new enough. Starts it once."""
        if self.path is None or not os.access(self.path, os.X_OK):
            return Health(False, _MISSING)
        try:
            told = children.run(
                [self.path, "--version"],
                env={"NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"},
                timeout=20,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Health(False, f"{self.path} cannot be started ({type(error).__name__})")
        found = re.match(r"deno (\d+)\.(\d+)\.", told.stdout.decode("utf-8", "replace"))
        if told.returncode != 0 or found is None:
            return Health(False, f"{self.path} does not answer as deno does")
        if (int(found[1]), int(found[2])) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            return Health(False, f"{self.path} is deno {found[1]}.{found[2]}; {oldest} is needed")
        return Health(True)

    @cached_property
    def identity(self) -> str:
        """Changes when the program or the package registry is another one."""
        try:
            stat = os.stat(self.path or "")
        except OSError:
            return "none"
        return f"{self.path}\0{stat.st_mtime_ns}\0{stat.st_size}\0{self.registry}"

    @property
    def registry(self) -> str:
        """The npm registry to use, empty for Deno's own; one with a password in it is left out."""
        url = self._environ.get("NPM_CONFIG_REGISTRY", "")
        return "" if "@" in url else url

    def site(self) -> dict[str, str]:
        """Give what each deno process is told: certificates, registry, no questions, no colour."""
        env = {
            "NO_COLOR": "1",
            "DENO_NO_UPDATE_CHECK": "1",
            "DENO_NO_PACKAGE_JSON": "1",
            **self._certificates(),
        }
        if self.registry:
            env["NPM_CONFIG_REGISTRY"] = self.registry
        return env

    def proxies(self) -> dict[str, str]:
        """Give the server's proxy settings, for processes that fetch modules."""
        names = [form for name in _PROXIES for form in (name, name.lower())]
        return {name: self._environ[name] for name in names if name in self._environ}

    def servers(self) -> list[str]:
        """Give host and port of the registry and the proxies that the server's user named."""
        urls = [self.registry, *(self.proxies().values())]
        return list(dict.fromkeys(place for url in urls if (place := _place(url)) is not None))

    def certificate_file(self) -> Path | None:
        """The site's own certificates, when the server's environment names a file of them."""
        named = self._environ.get("DENO_CERT")
        for name in (named, *(self._environ.get(each) for each in _CERTIFICATES)):
            if name and os.path.isfile(name):
                return Path(name)
        return None

    def _certificates(self) -> dict[str, str]:
        env = {"DENO_TLS_CA_STORE": self._environ.get("DENO_TLS_CA_STORE") or "system,mozilla"}
        file = self.certificate_file()
        if file is not None:
            env["DENO_CERT"] = str(file)
        return env


def _place(url: str) -> str | None:
    """Give ``host:port`` of a URL, None for what is none (a list of hosts, say)."""
    try:
        parts = urlsplit(url if "://" in url else "")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host:
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port or _PORTS.get(parts.scheme, 443)}"


def _packaged() -> str | None:
    try:
        from deno import find_deno_bin
    except ImportError:
        return None
    try:
        return find_deno_bin()
    except FileNotFoundError:
        return None
