"""A real git server for tests and benchmarks: ``git http-backend`` behind a small threaded server.

Repositories are made by whoever uses it, hostile ones object by object. It can fail on purpose.
"""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
import threading
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dicode_mcp.testing.lacking import lacking

_GIT_ENV = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def run_git(*args: str, cwd: Path | None = None, stdin: bytes | None = None) -> str:
    """Run git, with no configuration of the user's; gives what it wrote."""
    done = subprocess.run(
        ["git", *args], cwd=cwd, input=stdin or b"", env=_GIT_ENV, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"git {args[0]}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


class Repository:
    """A bare repository. Commits are made from files alone, without a work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._times = 0
        if not (path / "HEAD").exists():
            path.mkdir(parents=True)
            run_git("init", "-q", "--bare", "-b", "main", ".", cwd=path)

    def commit(
        self,
        files: Mapping[str, str | bytes | None],
        *,
        branch: str = "main",
        message: str = "change",
        author: str = "Ada <ada@example.org>",
        parent: str | None = "",
        executable: frozenset[str] = frozenset(),
    ) -> str:
        """Change files (None removes one) on a branch; gives the commit.

        ``parent`` is the commit to build on: the branch's own unless given; None begins anew.
        """
        self._times += 1
        ref = f"refs/heads/{branch}"
        base = (self.head(branch) or None) if parent == "" else parent
        when = f"{1_700_000_000 + self._times} +0000"
        out = [f"commit {ref}\n", f"author {author} {when}\ncommitter {author} {when}\n"]
        out += [_data(message.encode())]
        if base:
            out.append(f"from {base}\n")
        elif self.head(branch):
            out.insert(0, f"reset {ref}\n\n")
        for name, content in files.items():
            if content is None:
                out.append(f"D {name}\n")
                continue
            raw = content.encode() if isinstance(content, str) else content
            out += [f"M {'100755' if name in executable else '100644'} inline {name}\n", _data(raw)]
        stream = b"".join(x if isinstance(x, bytes) else x.encode() for x in out)
        run_git("fast-import", "--quiet", "--force", cwd=self.path, stdin=stream)
        return self.head(branch)

    def head(self, branch: str = "main") -> str:
        """Give a branch's commit; empty when there is no such branch."""
        return run_git(
            "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}", cwd=self.path
        ).strip()

    def tag(self, name: str, commit: str, *, message: str | None = None) -> None:
        """Tag a commit, with an object of its own when there is a message."""
        if message is None:
            run_git("update-ref", f"refs/tags/{name}", commit, cwd=self.path)
            return
        text = f"object {commit}\ntype commit\ntag {name}\n"
        text += f"tagger Ada <ada@example.org> 1700000000 +0000\n\n{message}\n"
        tag = self.write("tag", text.encode())
        run_git("update-ref", f"refs/tags/{name}", tag, cwd=self.path)

    def move(self, branch: str, commit: str) -> None:
        """Make a branch point elsewhere, as a forced push does."""
        (self.path / "refs/heads" / branch).parent.mkdir(parents=True, exist_ok=True)
        (self.path / "refs/heads" / branch).write_text(f"{commit}\n")

    def write(self, kind: str, data: bytes) -> str:
        """Write an object as it is, however malformed; gives its id."""
        raw = f"{kind} {len(data)}\0".encode() + data
        name = sha1(raw).hexdigest()
        path = self.path / "objects" / name[:2] / name[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(raw, 1))
        return name

    def blob(self, data: bytes) -> str:
        """Write a blob."""
        return self.write("blob", data)

    def tree(self, *entries: tuple[str, bytes, str]) -> str:
        """Write a tree of (mode, name, id), in the order given."""
        return self.write(
            "tree",
            b"".join(
                mode.encode() + b" " + name + b"\0" + bytes.fromhex(sha)
                for mode, name, sha in entries
            ),
        )

    def commit_tree(self, tree: str, *, branch: str = "main", message: str = "raw") -> str:
        """Commit a tree to a branch."""
        who = "Eve <eve@example.org> 1700000000 +0000"
        text = f"tree {tree}\nauthor {who}\ncommitter {who}\n\n{message}\n"
        commit = self.write("commit", text.encode())
        self.move(branch, commit)
        return commit


def _data(raw: bytes) -> bytes:
    return b"data %d\n" % len(raw) + raw + b"\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came. ``authorization`` is whether it carried credentials."""

    method: str
    path: str
    authorization: bool


Fault = Callable[["Exchange"], bool]
"""Deals with a request instead of git; True when it did."""


@dataclass(slots=True)
class GitServer:
    """A running server. ``repository`` makes what it serves; the rest may be changed any time."""

    root: Path
    url: str = ""
    token: str | None = None
    """The password every request has to carry, as user ``user``; None: anybody may read."""
    user: str = "git"
    fault: Fault | None = None
    seen: list[Seen] = field(default_factory=list[Seen])
    running: Callable[[], None] = lambda: None

    def repository(self, name: str = "tasks.git") -> Repository:
        """Give a repository, made when it is not there."""
        return Repository(self.root / name)

    def url_of(self, name: str = "tasks.git") -> str:
        """Give the URL of a repository."""
        return f"{self.url}/{name}"


@contextmanager
def serving(root: Path, *, tls: ssl.SSLContext | None = None) -> Generator[GitServer]:
    """Serve the repositories below ``root`` on loopback while the block lasts."""
    if shutil.which("git") is None:
        lacking("needs git and its http-backend")
    root.mkdir(parents=True, exist_ok=True)
    server = GitServer(root)

    class Handler(Exchange):
        git = server

    http = _Threaded(("127.0.0.1", 0), Handler)
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "https" if tls else "http"
    server.url = f"{scheme}://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Threaded(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of the tests."""


class Exchange(BaseHTTPRequestHandler):
    """One connection. Faults use it to answer in git's place."""

    git: GitServer
    body: bytes = b""
    """Of the request that is being answered."""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def do_GET(self) -> None:
        """Answer with what git says."""
        self._serve()

    def do_POST(self) -> None:
        """Answer with what git says."""
        self._serve()

    def answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer in git's place."""
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def drop(self) -> bool:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.close()
        return True

    def _serve(self) -> None:
        sent = self.headers.get("Authorization")
        self.git.seen.append(Seen(self.command, self.path, sent is not None))
        self.body = body = self._body()
        if self.git.fault is not None and self.git.fault(self):
            return
        if self.git.token is not None:
            pair = f"{self.git.user}:{self.git.token}".encode()
            if sent != "Basic " + base64.b64encode(pair).decode():
                challenge = {"WWW-Authenticate": 'Basic realm="git"'}
                self.answer(401, b"no", challenge)
                return
        status, headers, text = self.backend(body, authorised=sent is not None)
        self.answer(status, text, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts: list[bytes] = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def backend(self, body: bytes, *, authorised: bool) -> tuple[int, dict[str, str], bytes]:
        """Give what git answers."""
        path, _, query = self.path.partition("?")
        env = {
            **_GIT_ENV,
            "GIT_PROJECT_ROOT": str(self.git.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "127.0.0.1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            # Its own checks would keep hostile repositories from being served.
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "http.receivepack",
            "GIT_CONFIG_VALUE_1": "true",
        }
        if self.headers.get("Content-Encoding"):
            env["HTTP_CONTENT_ENCODING"] = self.headers["Content-Encoding"]
        if authorised:
            env["REMOTE_USER"] = self.git.user
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=env, capture_output=True, check=False
        )
        head, _, text = done.stdout.partition(b"\r\n\r\n")
        headers = dict(
            line.split(": ", 1) for line in head.decode("latin-1").split("\r\n") if ": " in line
        )
        status = int(headers.pop("Status", "200").split()[0])
        headers.pop("Content-Length", None)
        return status, headers, text


def make_certificate(folder: Path, *, host: str = "127.0.0.1") -> tuple[Path, ssl.SSLContext]:
    """Make an authority's certificate and the context of a server that has it."""
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2",
            "-subj", "/CN=dicode test", "-addext", f"subjectAltName=IP:{host},DNS:localhost",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context
