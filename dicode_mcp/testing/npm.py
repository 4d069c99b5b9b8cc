"""A package registry for npm in one thread, serving the packages a test gives it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeRegistry:
    """Packages by name, each in one version with one file. ``asked`` are the paths requested."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self._packages: dict[str, bytes] = {}

    def add(self, name: str, source: str) -> None:
        """Offer a package of version 1.0.0 whose ``index.js`` is ``source``."""
        manifest = {"name": name, "version": "1.0.0", "type": "module", "main": "index.js"}
        self._packages[name] = _tarball({"package.json": json.dumps(manifest), "index.js": source})

    def answer(self, path: str) -> bytes | None:
        """Give what is at a path, None when there is nothing."""
        self.asked.append(path)
        name = path.strip("/").partition("/-/")[0]
        tarball = self._packages.get(name)
        if tarball is None:
            return None
        return tarball if path.endswith(".tgz") else json.dumps(self._about(name, tarball)).encode()

    def _about(self, name: str, tarball: bytes) -> dict[str, Any]:
        sha512 = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
        dist = {"tarball": f"{self.url}{name}/-/{name}-1.0.0.tgz", "integrity": f"sha512-{sha512}"}
        version = {"name": name, "version": "1.0.0", "dist": dist}
        return {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}


@contextmanager
def npm_registry() -> Generator[FakeRegistry]:
    """Serve a registry on a free port while the block lasts."""
    registry = FakeRegistry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = registry.answer(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, name="npm registry")
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _tarball(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
