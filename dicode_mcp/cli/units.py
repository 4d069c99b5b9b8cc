"""The files that tell systemd and launchd how to run the server. Pure: facts in, text out.

Tasks inherit what stands here, so nothing here may take away what a task can be granted.
"""

from __future__ import annotations

import plistlib
from typing import NamedTuple

from dicode_mcp.cli.failures import usage

MARK = "Written by `dicode service install`"
"""Stands in the first lines of each file of ours; a file without it is somebody else's."""
LABEL = "dicode"

_SYSTEMD = """\
# {mark}, which writes it anew. Your own changes: systemctl --user edit {label}
[Unit]
Description=dicode automation server
StartLimitIntervalSec=120
StartLimitBurst=5

[Service]
Type=exec
ExecStart={command}
WorkingDirectory={folder}
Environment={path}
Restart=on-failure
RestartSec=2
# It exits with 2 when it cannot start: a bad config, a port or data dir that is taken.
RestartPreventExitStatus=2

# The first signal is for the server alone: it ends its runs itself, within this time.
KillMode=mixed
TimeoutStopSec={stop_seconds}
# Its cgroup is its own to divide among runs; a run that eats all memory ends, the server does not.
Delegate=yes
OOMPolicy=continue

# No core files, which would hold secrets. Nothing that brings NoNewPrivileges= or namespaces of
# systemd's own with it: both keep rootless containers and sandboxed tasks from working.
LimitCORE=0

[Install]
WantedBy=default.target
"""


class Definition(NamedTuple):
    """How the server is to be run: absolute words, and how long its end may take."""

    command: tuple[str, ...]
    folder: str
    path: str
    """``PATH`` for the server, and so for its tasks."""
    log: str
    """Where the server's own log goes when the service manager keeps none."""
    stop_seconds: int


def is_ours(text: str) -> bool:
    """Tell whether a file was written by this command."""
    return MARK in "\n".join(text.splitlines()[:4])


def systemd_unit(definition: Definition) -> str:
    """Write the user unit."""
    program, *rest = definition.command
    return _SYSTEMD.format(
        mark=MARK,
        label=LABEL,
        command=" ".join([_quoted(program), *(_quoted(word, dollar="$$") for word in rest)]),
        folder=_escaped(definition.folder),
        path=_quoted(f"PATH={definition.path}"),
        stop_seconds=definition.stop_seconds,
    )


def _quoted(word: str, dollar: str = "$") -> str:
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", dollar)
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    _refuse_controls(text)
    return text.replace("%", "%%")


def launchd_agent(definition: Definition) -> str:
    """Write the launch agent."""
    for word in (*definition.command, definition.folder, definition.path, definition.log):
        _refuse_controls(word)
    agent = {
        "Label": LABEL,
        "ProgramArguments": list(definition.command),
        "WorkingDirectory": definition.folder,
        "EnvironmentVariables": {"PATH": definition.path},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": definition.stop_seconds,
        "HardResourceLimits": {"Core": 0},
        "StandardOutPath": definition.log,
        "StandardErrorPath": definition.log,
    }
    head, _, body = plistlib.dumps(agent, sort_keys=False).decode().partition("\n")
    return f"{head}\n<!-- {MARK}, which writes it anew. -->\n{body}"


def _refuse_controls(text: str) -> None:
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise usage(
            "a path of this server holds a control character, which a service cannot be given",
            "rename that folder, or choose others with --data-dir, --config and --source",
        )
