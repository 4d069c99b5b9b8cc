import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque

from dicode_sdk import input

MAX_OUTPUT = 1024 * 1024
GRACE_S = 5
TAIL_LINES = 20
TAIL_CHARS = 2000
LINE_BYTES = 64 * 1024
PLAIN = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
"""What every agent gets of the environment; the rest is what its agent.json names."""


class AgentError(Exception):
    """The agent did not do its work; the text says how it ended and what it wrote last."""


class Reader(threading.Thread):
    """Reads a pipe to its end, so that the agent never waits for it."""

    def __init__(self, pipe):
        super().__init__(daemon=True)
        self.pipe = pipe
        self.start()


class Output(Reader):
    """Keeps what an agent prints, up to ``MAX_OUTPUT``; what is longer is its end."""

    def __init__(self, pipe, too_much):
        self.data = bytearray()
        self.full = False
        self.too_much = too_much
        super().__init__(pipe)

    def run(self):
        while chunk := self.pipe.read1(65536):
            if not self.full:
                self.data += chunk
            if len(self.data) > MAX_OUTPUT and not self.full:
                self.full = True
                self.too_much()


class Words(Reader):
    """Passes on what an agent writes to stderr, line by line, and keeps the last lines."""

    def __init__(self, pipe):
        self.tail = deque(maxlen=TAIL_LINES)
        super().__init__(pipe)

    def run(self):
        while line := self.pipe.readline(LINE_BYTES):
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            self.tail.append(text)
            print(text, file=sys.stderr, flush=True)

    def last(self):
        """Give the last lines, for an error."""
        self.join(GRACE_S)
        text = "\n".join(list(self.tail)).strip()
        if not text:
            return "; it wrote nothing to stderr"
        return f"; its last words:\n{text[-TAIL_CHARS:]}"


def environment(names):
    """Give the agent's environment: nothing is inherited that is not named."""
    return {name: os.environ[name] for name in (*PLAIN, *names) if name in os.environ}


def written(payload):
    """Write the payload to a file of the run's own folder, for this user alone; give its path."""
    handle, path = tempfile.mkstemp(prefix="payload-", suffix=".json", dir=os.environ["TMPDIR"])
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(payload, file)
    return path


def end(process):
    """End the agent and all it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)


def run(name, command, folder, env, payload, seconds):
    """Run the agent to its end; give what it printed."""
    path = written(payload)
    process = None
    try:
        process = subprocess.Popen(
            [*command, "--payload", path],
            cwd=folder,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        out, words = Output(process.stdout, lambda: end(process)), Words(process.stderr)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            end(process)
            late = f"agent {name} took longer than {seconds:g} s and was ended"
            raise AgentError(late + words.last()) from None
        out.join(GRACE_S)
        if out.full:
            raise AgentError(f"agent {name} printed more than {MAX_OUTPUT:,} bytes and was ended")
        if code < 0:
            ended = f"agent {name} was ended by {signal.Signals(-code).name}"
            raise AgentError(ended + words.last())
        if code:
            raise AgentError(f"agent {name} ended with exit code {code}{words.last()}")
        return bytes(out.data)
    except OSError as error:
        raise AgentError(f"agent {name} could not be started: {error.strerror}") from None
    finally:
        if process is not None:
            end(process)
        os.unlink(path)


def value_of(name, printed):
    """Read what an agent printed: JSON as a whole, else its last line that is not empty."""
    text = printed.decode("utf-8", "replace").strip()
    if not text:
        raise AgentError(f"agent {name} printed nothing; it is to print its result as JSON")
    for part in (text, text.splitlines()[-1]):
        try:
            return json.loads(part)
        except ValueError:
            continue
    raise AgentError(
        f"agent {name} printed something whose last line is not JSON; what is not its result"
        " belongs on stderr"
    )


def main():
    if not isinstance(input, dict) or "command" not in input:
        raise AgentError("this task is started by dicode.agent(), not by hand")
    home, tmp = os.environ["HOME"], os.environ["TMPDIR"]
    scratch, name = input["scratch"], input["agent"]
    command = [
        part.replace(f"{scratch}/home", home).replace(f"{scratch}/tmp", tmp)
        for part in input["command"]
    ]
    printed = run(name, command, input["folder"], input["env"], input["payload"], input["timeout"])
    return value_of(name, printed)
