"""A package index in one thread, serving the wheels and source archives that a test makes."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeIndex:
    """Packages by name. ``asked`` are the paths requested; ``down`` answers 503 to all."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.down = False
        self._files: dict[str, dict[str, bytes]] = {}

    def add(
        self, name: str, source: str, version: str = "1.0", requires: Sequence[str] = ()
    ) -> None:
        """Offer a wheel with one module of the package's name."""
        file = f"{name}-{version}-py3-none-any.whl"
        self._files.setdefault(name, {})[file] = _wheel(name, source, version, requires)

    def add_source(self, name: str, setup: str, version: str = "1.0") -> None:
        """Offer a package that has to be built: its ``setup.py`` would run."""
        file = f"{name}-{version}.tar.gz"
        self._files.setdefault(name, {})[file] = _archive(f"{name}-{version}", setup)

    def answer(self, path: str) -> bytes | None:
        """Give what is at a path, None when there is nothing."""
        self.asked.append(path)
        name, _, file = path.strip("/").partition("/")
        files = self._files.get(name.replace("-", "_"))
        if files is None:
            return None
        if file:
            return files.get(file)
        return "".join(f'<a href="{each}">{each}</a>' for each in files).encode()


@contextmanager
def wheel_index() -> Generator[FakeIndex]:
    """Serve an index on a free port while the block lasts."""
    index = FakeIndex()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            body = None if index.down else index.answer(self.path)
            self.send_response(503 if index.down else 404 if body is None else 200)
            kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if with_body:
                self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.url = f"http://127.0.0.1:{server.server_address[1]}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


def _wheel(name: str, source: str, version: str, requires: Sequence[str]) -> bytes:
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        f"{info}/RECORD": "",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return out.getvalue()


def _archive(folder: str, setup: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        name, _, version = folder.rpartition("-")
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        for path, text in (("setup.py", setup), ("PKG-INFO", about)):
            data = text.encode()
            entry = tarfile.TarInfo(f"{folder}/{path}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()
