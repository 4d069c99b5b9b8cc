"""The http and ssh sides of talking git: dulwich's clients with our own rules under them.

Part of the worker. The rules: a name is resolved here and its addresses judged before connecting;
a redirect stays on its host; only the smart protocol is spoken; what is read is counted.
"""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from dulwich import client as dulwich
from dulwich.protocol import CAPABILITY_PACKFILE_URIS, Protocol, pkt_line
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from dicode_mcp.sources.git.failures import GitError, Reason
from dicode_mcp.sources.git.jobs import Access
from dicode_mcp.sources.git.remote import Reach, Remote, require_address

_CONNECT_S = 10.0
_HOPS = 3
_ASKING = 32 * 2**20
"""Bytes of an answer about refs: some 300,000 refs."""

Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """Give the addresses of a name, without repeats; raises ``OSError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def addresses(remote: Remote, port: int, reach: Reach) -> list[str]:
    """Give the addresses of a remote, each within reach. Raises ``GitError``."""
    try:
        found = resolve(remote.host, port)
    except OSError:
        raise GitError(
            Reason.UNREACHABLE,
            f"{remote.shown}: the host name {remote.host} cannot be resolved",
            "check the URL and this machine's network",
        ) from None
    for address in found:
        require_address(remote, address, reach)
    return found


# ── http ─────────────────────────────────────────────────────────────────────────────────────


def _connected(remote: Remote, port: int, reach: Reach, timeout: float) -> socket.socket:
    """Connect to an address that was judged: the name is not resolved a second time."""
    last: OSError | None = None
    for address in addresses(remote, port, reach):
        try:
            made = socket.create_connection((address, port), timeout)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        except OSError as error:
            last = error
    raise last or OSError("no address")


def _manager(remote: Remote, access: Access, silence: float) -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=_CONNECT_S, read=silence)
    headers = {"User-Agent": "git/dicode-mcp", "Accept-Encoding": "identity"}
    options: dict[str, Any] = {"timeout": timeout, "retries": False, "headers": headers}
    if remote.scheme == "https":
        options["ssl_context"] = _tls(access.ca_file)
    if access.proxy:
        # The proxy resolves the name again, so this is only as good as it is.
        addresses(remote, remote.port or 443, access.reach)
        return urllib3.ProxyManager(access.proxy, **options)
    manager = urllib3.PoolManager(1, **options)

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(remote, self.port or 80, access.reach, _CONNECT_S)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(remote, self.port or 443, access.reach, _CONNECT_S)

    pools: dict[str, Any] = {
        "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": Plain}),
        "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": Secure}),
    }
    manager.pool_classes_by_scheme = pools
    return manager


_contexts: dict[str | None, ssl.SSLContext] = {}


def _tls(ca_file: str | None) -> ssl.SSLContext:
    """Give the context that verifies; made once, since reading all authorities takes 10 ms."""
    if ca_file not in _contexts:
        _contexts[ca_file] = ssl.create_default_context(cafile=ca_file)
    return _contexts[ca_file]


def warm_up() -> None:
    """Do beforehand, for all jobs, what each would do again."""
    _tls(None)
    "localhost".encode("idna")


class HttpClient(dulwich.Urllib3HttpGitClient):
    """Speaks smart http to one host, and counts what it is sent."""

    def __init__(self, remote: Remote, access: Access, *, most: int, silence: float) -> None:
        super().__init__(
            remote.base,
            pool_manager=_manager(remote, access, silence),
            username=access.username,
            password=access.password,
        )
        self._remote = remote
        self._most = most
        self._fetch_capabilities.discard(CAPABILITY_PACKFILE_URIS)

    def refs_at_once(self, prefix: bytes) -> Mapping[Any, Any]:
        """Give the refs that begin with ``prefix``, of a server known to speak protocol 2.

        One request in place of two: who polls has seen its capabilities before.
        """
        self.protocol_version = 2
        lines = (b"command=ls-refs\n", None, b"ref-prefix %s\n" % prefix)
        body = b"".join(b"0001" if line is None else pkt_line(line) for line in lines) + b"0000"
        answer, read = self._smart_request("git-upload-pack", self._base_url, body)
        try:
            refs, _, _ = dulwich.read_pkt_refs_v2(Protocol(read, _never).read_pkt_seq())
        finally:
            answer.close()
        return refs

    def _get_url(self, path: str | bytes) -> str:
        return self._base_url

    def _http_request(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        data: bytes | Iterator[bytes] | None = None,
        raise_for_status: bool = True,
    ) -> tuple[Any, Callable[[int], bytes]]:
        sent = {**dict(self.pool_manager.headers), **(headers or {}), "Pragma": "no-cache"}
        if self._auth_header is not None and self._origin(url) == self._auth_origin:
            sent["Authorization"] = self._auth_header
        answer = self._answer(url, sent, data)
        answer.content_type = answer.headers.get("Content-Type")
        if answer.status != 200:
            answer.close()
            raise self._failed(answer.status)
        if data is None and not (answer.content_type or "").startswith("application/x-git-"):
            answer.close()
            raise self._no_repository()
        return answer, _counted(answer.read, _ASKING if data is None else self._most, self._remote)

    def _answer(self, url: str, headers: dict[str, str], data: Any) -> Any:
        method = "GET" if data is None else "POST"
        manager: Any = self.pool_manager
        at = url
        for _ in range(_HOPS + 1):
            answer: Any = manager.request(
                method, at, headers=headers, body=data, preload_content=False, redirect=False
            )
            where = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not where:
                answer.redirect_location = at if at != url else ""
                return answer
            answer.close()
            to = urljoin(at, where)
            if method == "POST" or self._origin(to) != self._origin(at):
                raise self._moved(to)
            at = to
        raise GitError(Reason.UNREACHABLE, f"{self._remote.shown}: redirects in a circle")

    def _moved(self, to: str) -> GitError:
        parts = urlsplit(to)
        where = parts.hostname or "another place"
        if parts.hostname == self._remote.host:
            where = f"{parts.scheme} on the same host"
        return GitError(
            Reason.NOT_TRUSTED,
            f"{self._remote.shown}: redirects to {tidy(where)}; that is not followed",
            "if the repository has moved, write its new URL",
        )

    def _failed(self, status: int) -> GitError:
        shown = self._remote.shown
        if status in (401, 403):
            if self._auth_header is None:
                hint = "name the variable that holds a token: auth: {token_env: NAME}"
                return GitError(Reason.AUTH_FAILED, f"{shown}: wants credentials", hint)
            hint = "renew the token in the variable that auth.token_env names, then restart"
            return GitError(Reason.AUTH_FAILED, f"{shown}: refuses the token", hint)
        if status == 404:
            return self._no_repository()
        return GitError(Reason.UNREACHABLE, f"{shown}: answers with HTTP status {status}")

    def _no_repository(self) -> GitError:
        hint = "check the URL"
        if self._auth_header is None:
            hint += "; a private repository needs auth: {token_env: NAME}"
        message = f"{self._remote.shown}: there is no git repository"
        return GitError(Reason.NOT_A_REPOSITORY, message, hint)


def _never(data: bytes) -> None:
    raise AssertionError("everything was sent before the answer is read")


def _counted(read: Callable[..., bytes], most: int, remote: Remote) -> Callable[[int], bytes]:
    left = most

    def counted(size: int) -> bytes:
        nonlocal left
        data = read(size)
        left -= len(data)
        if left < 0:
            raise GitError(
                Reason.TOO_LARGE,
                f"{remote.shown}: sends more than {most} bytes",
                "if that is right for this repository, raise max_total_size of its source",
            )
        return data

    return counted


# ── ssh ──────────────────────────────────────────────────────────────────────────────────────


class SystemSsh(dulwich.SSHVendor):
    """Runs the system's ``ssh``, which asks nobody anything and knows its hosts by policy."""

    def __init__(self, remote: Remote, access: Access) -> None:
        self._remote = remote
        self._access = access
        self.process: subprocess.Popen[bytes] | None = None

    def run_command(
        self,
        host: str,
        command: bytes,
        username: str | None = None,
        port: int | None = None,
        password: str | None = None,
        key_filename: str | None = None,
        ssh_command: str | None = None,
        protocol_version: int | None = None,
    ) -> dulwich.SubprocessWrapper:
        """Start ``git-upload-pack`` on the host."""
        program = shutil.which("ssh")
        if program is None:
            raise GitError(
                Reason.NO_SSH, "this machine has no ssh program", "install openssh-client"
            )
        self.process = subprocess.Popen(
            [program, *ssh_options(self._remote, self._access), "--", host, command],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return dulwich.SubprocessWrapper(self.process)


def ssh_options(remote: Remote, access: Access) -> list[str]:
    """Give ssh's options for a remote."""
    chosen = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes" if access.host_keys == "strict" else "accept-new",
        "ConnectTimeout": str(round(_CONNECT_S)),
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "SetEnv": "GIT_PROTOCOL=version=2",
    }
    if access.known_hosts:
        chosen["UserKnownHostsFile"] = f'"{access.known_hosts}" ~/.ssh/known_hosts'
    if access.ssh_key:
        chosen["IdentitiesOnly"] = "yes"
        chosen["IdentityFile"] = f'"{access.ssh_key}"'
    options = ["-T", "-x"]
    if access.reach is Reach.PUBLIC:
        # Whoever names such a URL must not choose among the user's host aliases and proxies.
        options += ["-F", "none"]
        chosen["HostName"] = addresses(remote, remote.port or 22, access.reach)[0]
        chosen["HostKeyAlias"] = remote.host
        # Nor learn the user's keys by being offered them.
        chosen |= {"IdentityAgent": "none", "IdentitiesOnly": "yes"}
    elif access.reach is Reach.NETWORK:
        _judge_if_known(remote, access.reach)
    if remote.port:
        chosen["Port"] = str(remote.port)
    user = access.username or remote.user
    if user:
        chosen["User"] = user
    for name, value in chosen.items():
        options += ["-o", f"{name}={value}"]
    return options


def _judge_if_known(remote: Remote, reach: Reach) -> None:
    try:
        addresses(remote, remote.port or 22, reach)
    except GitError as error:
        # It may be an alias of the user's ssh configuration; then ssh knows better.
        if error.failure.reason is not Reason.UNREACHABLE:
            raise


def ssh_failure(remote: Remote, said: str) -> GitError:
    """Say what ssh meant. Its words are the only thing it tells by."""
    text = said.lower()
    shown = remote.shown
    if "host key verification failed" in text or "host key for" in text:
        changed = "has changed" in text
        what = "has another key than ssh knows" if changed else "has a key that ssh does not know"
        hint = (
            f"compare it with what its owner publishes, then: ssh-keyscan {remote.host}"
            " >> ~/.ssh/known_hosts, or set auth.host_keys: accept-new"
        )
        return GitError(Reason.UNKNOWN_HOST_KEY, f"{shown}: the host {what}", hint)
    if "permission denied" in text or "too many authentication failures" in text:
        hint = "name a key that the host knows: auth: {ssh_key: FILE}; it may have no passphrase"
        return GitError(Reason.AUTH_FAILED, f"{shown}: the host refuses the ssh key", hint)
    if any(sign in text for sign in ("does not appear to be a git", "not found", "no such")):
        return GitError(
            Reason.NOT_A_REPOSITORY, f"{shown}: there is no git repository", "check the URL"
        )
    return GitError(
        Reason.UNREACHABLE, f"{shown}: ssh says: {tidy(said)}", "check the URL and the network"
    )


def tidy(text: str, most: int = 300) -> str:
    """Give foreign text fit to be shown."""
    kept = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(kept.split())[:most] or "nothing"


def without_secret(text: str, access: Access) -> str:
    """Give text of the remote's making without the credentials it was sent."""
    if not access.password:
        return text
    pair = f"{access.username or ''}:{access.password}"
    for secret in (access.password, base64.b64encode(pair.encode()).decode()):
        text = text.replace(secret, "***")
    return text


def connect(
    remote: Remote, access: Access, *, most: int, silence: float
) -> tuple[dulwich.GitClient, str]:
    """Give a client for a remote, and the path to ask it for. Raises ``GitError``."""
    if remote.scheme == "ssh":
        vendor = SystemSsh(remote, access)
        return dulwich.SSHGitClient(remote.host, vendor=vendor), remote.path
    if remote.scheme == "file":
        return dulwich.LocalGitClient(), remote.path
    return HttpClient(remote, access, most=most, silence=silence), remote.path
