"""Tries to call the server as if it were its user. Standard library only; no process is too much.

``python attempt.py FORM OUT TARGET`` writes what the server answered to the file OUT. TARGET is
``socket:PATH``, ``http:HOST:PORT``, or ``fd:N``, an HTTP connection that was inherited.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time

DEADLINE_S = 30.0
_UNSHARE_FILES = 0x400

_PARAMS = {
    "name": "run_task",
    "arguments": {"id": "victim", "wait_seconds": 0},
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "intruder", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    },
}
CALL = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": _PARAMS}).encode()


def connect(target):
    kind, _, where = target.partition(":")
    if kind == "fd":
        link = socket.socket(fileno=int(where))
    elif kind == "socket":
        link = socket.socket(socket.AF_UNIX)
        link.connect(where)
    else:
        host, _, port = where.rpartition(":")
        link = socket.create_connection((host, int(port)))
    link.settimeout(DEADLINE_S)
    return link


def talk(target):
    """Ask for a run; over HTTP after a first, open request on the same connection."""
    with connect(target) as link:
        if target.startswith("socket:"):
            link.sendall(CALL + b"\n")
            return link.makefile("rb").readline().decode()
        stream = link.makefile("rb")
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        first, _ = read_answer(stream)
        head = (
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n"
            "Mcp-Method: tools/call\r\nMcp-Name: run_task\r\n"
            f"{authorization()}Content-Length: {len(CALL)}\r\n\r\n"
        )
        link.sendall(head.encode() + CALL)
        status, body = read_answer(stream)
        return f"{first} {status} {body}"


def authorization():
    """Send a right key too, where the test has laid one beside this file."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "key")
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        return f"Authorization: Bearer {file.read()}\r\n"


def read_answer(stream):
    status = int(stream.readline().split()[1])
    length = 0
    while (header := stream.readline()) not in (b"\r\n", b""):
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, stream.read(length).decode()


# ── The forms ────────────────────────────────────────────────────────────────────────────────


def plain(out, target):
    write(out, talk(target))


def fled(out, target):
    """Speak from an orphan in a session of its own."""
    first = os.getpid()
    if os.fork() == 0:
        os.setsid()
        middle = os.getpid()
        if os.fork() == 0:
            while os.getppid() == middle:
                time.sleep(0.001)
            assert os.getppid() != first
            report(plain, out, target)
            os._exit(0)
        os._exit(0)
    os.wait()


def threaded(out, target):
    """Speak from a thread whose descriptors no listing of the process shows."""

    def alone():
        assert ctypes.CDLL(None).unshare(_UNSHARE_FILES) == 0
        report(plain, out, target)

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()


def undumpable(out, target):
    """Speak from a process that has closed itself to other eyes."""
    assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0
    plain(out, target)


def veiled(out, target):
    """Speak from below a process that has closed itself to other eyes."""
    assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0
    subprocess.run([sys.executable, "-I", "-S", __file__, "plain", out, target], check=True)


def inherited(out, target):
    """Connect here; let an orphan without environment speak."""
    with connect(target) as link:
        fd = link.fileno()
        command = [sys.executable, "-I", "-S", __file__, "fled", out, f"fd:{fd}"]
        subprocess.run(command, env={}, pass_fds=[fd], check=True)


FORMS = {f.__name__: f for f in (plain, fled, threaded, undumpable, veiled, inherited)}


def write(out, answer):
    with open(out + ".part", "w") as file:
        file.write(answer)
    os.rename(out + ".part", out)


def report(form, out, target):
    try:
        form(out, target)
    except Exception as error:
        write(out, f"error: {error!r}")


def read_when_there(out):
    deadline = time.monotonic() + DEADLINE_S
    while not os.path.exists(out):
        assert time.monotonic() < deadline, "no answer was written"
        time.sleep(0.005)
    with open(out) as file:
        return file.read()


if __name__ == "__main__":
    report(FORMS[sys.argv[1]], sys.argv[2], sys.argv[3])
