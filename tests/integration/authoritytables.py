"""What every tool and every route takes: the tables that the matrices of authority go through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from authority import Authority
from keycalls import Holder

from dicode_mcp.tools.server import ALL_TOOLS

HASH = "a" * 64
Arguments = Callable[[str, str], dict[str, Any]]
"""Gives a tool's arguments from the ids of a task and of a run of it."""


def _task(**more: Any) -> Arguments:
    return lambda task_id, run_id: {"id": task_id, **more}


def _run(**more: Any) -> Arguments:
    return lambda task_id, run_id: {"run_id": run_id, **more}


def _source(**more: Any) -> Arguments:
    return lambda task_id, run_id: {"source": task_id.partition("/")[0], **more}


def _secret(**more: Any) -> Arguments:
    return lambda task_id, run_id: {"name": f"{task_id.partition('/')[0]}_token", **more}


ON_A_TASK: Mapping[str, Arguments] = {
    "get_task": _task(),
    "suggest_permissions": _task(),
    "validate_task": _task(),
    "set_task_enabled": _task(enabled=True),
    "run_task": _task(wait_seconds=0),
    "approve_task": _task(hash=HASH),
    "read_task_file": _task(path="task.py"),
    "write_task_file": _task(path="notes.txt", content="x"),
    "commit_task": _task(message="m"),
    "uninstall_task": _task(),
    "update_task": _task(dry_run=True),
    "new_task": lambda task_id, run_id: {
        "source": task_id.partition("/")[0],
        "id": task_id.partition("/")[2],
        "template": "python",
    },
    "get_run": _run(),
    "get_logs": _run(),
    "cancel_run": _run(),
    "pin_run": _run(pinned=False),
    "answer_run": _run(answer="x"),
    "replay_run": _run(wait_seconds=0),
    "sync_source": _source(),
    "secrets_set": _secret(value="long enough"),
    "secrets_delete": _secret(),
}
"""Tools that act on one task, its run, its source or its secret; with arguments that a caller who
may gets past every check of rights with, whatever comes then."""

ON_ALL: Mapping[str, Arguments] = {
    "switch_dev_mode": _source(enabled=False),
    "install_task": lambda task_id, run_id: {"task": "https://127.0.0.1:9/none.git"},
    "keys_create": lambda task_id, run_id: {"name": "", "scopes": ["read"]},
    "keys_list": lambda task_id, run_id: {},
    "keys_revoke": lambda task_id, run_id: {"key": "nobody"},
    "get_audit": lambda task_id, run_id: {"limit": 1},
    "prune": lambda task_id, run_id: {"dry_run": True},
    "secrets_rotate": lambda task_id, run_id: {},
    "passphrase_set": lambda task_id, run_id: {"passphrase": "short"},
}
"""Tools that are about more than one task: a key for some tasks gets nothing from them."""

OF_WHAT_IS_SEEN: Mapping[str, Arguments] = {
    "list_tasks": lambda task_id, run_id: {},
    "get_runs": lambda task_id, run_id: {},
    "get_stats": lambda task_id, run_id: {},
    "get_status": lambda task_id, run_id: {},
    "list_sources": lambda task_id, run_id: {},
    "secrets_list": lambda task_id, run_id: {},
    "search_tasks": lambda task_id, run_id: {"query": "two"},
}
"""Tools that tell everybody what he may see."""

KNOWN = {**ON_A_TASK, **ON_ALL, **OF_WHAT_IS_SEEN}
OF_OWNER = frozenset({"passphrase_set"})
"""Of those on all: whatever a key has, they are not for it."""
VERB = {tool.name: tool.verb for tool in ALL_TOOLS}
WHOLE = frozenset({"install_task"})
"""Of those on all: may be called with the verb on some tasks, since what it adds has an id."""


@dataclass(frozen=True)
class Asked:
    """What a route takes. ``verb`` None: anybody; ``whole``: of more than one task."""

    verb: str | None
    path: str
    body: Any = None
    whole: bool = False
    task: bool = False
    page: bool = False
    owner: bool = False
    """For the owner alone, by the kernel's word or a session; what he finds there, not asked."""


ROUTES: Mapping[tuple[str, str], Asked] = {
    ("GET", "/healthz"): Asked(None, "/healthz"),
    ("GET", "/readyz"): Asked(None, "/readyz"),
    ("GET", "/dicode.js"): Asked(None, "/dicode.js"),
    ("GET", "/metrics"): Asked("read", "/metrics", whole=True),
    ("GET", "/api/sources"): Asked("read", "/api/sources"),
    ("PATCH", "/api/sources/{name}/dev"): Asked(
        "author", "/api/sources/{source}/dev", {"enabled": False}, whole=True
    ),
    ("GET", "/api/tasks"): Asked("read", "/api/tasks"),
    ("GET", "/api/tasks/runs"): Asked("read", "/api/tasks/runs"),
    ("POST", "/api/tasks/trigger"): Asked(
        "run", "/api/tasks/trigger", {"type": "{task}"}, task=True
    ),
    ("POST", "/api/tasks/{id:path}/run"): Asked("run", "/api/tasks/{quoted}/run", {}, task=True),
    ("GET", "/api/tasks/{id:path}"): Asked("read", "/api/tasks/{quoted}", task=True),
    ("GET", "/api/runs/{run_id}"): Asked("read", "/api/runs/{run}", task=True),
    ("GET", "/api/runs/{run_id}/logs"): Asked("read", "/api/runs/{run}/logs", task=True),
    ("POST", "/api/runs/{run_id}/kill"): Asked("run", "/api/runs/{run}/kill", {}, task=True),
    ("POST", "/api/runs/{run_id}/replay"): Asked("run", "/api/runs/{run}/replay", {}, task=True),
    ("POST", "/api/runs/{run_id}/pin"): Asked(
        "run", "/api/runs/{run}/pin", {"pinned": False}, task=True
    ),
    ("GET", "/api/secrets"): Asked("read", "/api/secrets"),
    ("PUT", "/api/secrets/{name}"): Asked(
        "secrets", "/api/secrets/{source}_token", {"value": "long enough"}, task=True
    ),
    ("DELETE", "/api/secrets/{name}"): Asked("secrets", "/api/secrets/{source}_token", task=True),
    ("GET", "/"): Asked("read", "/", page=True),
    ("GET", "/runs"): Asked("read", "/runs", page=True),
    ("GET", "/runs/{id}"): Asked("read", "/runs/{run}", task=True, page=True),
    ("GET", "/tasks/{id:path}"): Asked("read", "/tasks/{quoted}", task=True, page=True),
    ("GET", "/runs/{id}/answer"): Asked("run", "/runs/{run}/answer", page=True, owner=True),
    ("POST", "/runs/{id}/answer"): Asked("run", "/runs/{run}/answer", page=True, owner=True),
    ("GET", "/secrets/set/{ticket}"): Asked("secrets", "/secrets/set/x", page=True, owner=True),
    ("POST", "/secrets/set/{ticket}"): Asked("secrets", "/secrets/set/x", page=True, owner=True),
    ("GET", "/hooks/{path:path}"): Asked("read", "/hooks/{source}", task=True),
    ("POST", "/hooks/{path:path}"): Asked("run", "/hooks/{source}?wait=false", {}, task=True),
}
"""By method and path as it is declared. HEAD goes with GET."""
ELSEWHERE = {
    "/mcp": "every tool above, over it",
    "/sse": "tests/unit/web/test_web_bearers.py: bound to the key that opened it",
    "/sse/messages": "the same",
    "/api/events": "test_events_are_of_what_a_key_may_see",
    "/hooks/git/{source}": "proves itself: tests/integration/test_git_source.py",
    "/login": "the owner's own: tests/unit/web/test_web_sessions.py",
    "/logout": "the same",
    "/style.css": "open, static",
    "/icon.svg": "open, static",
}


async def ask(
    house: Authority,
    holder: Holder,
    method: str,
    asked: Asked,
    task_id: str,
    headers: Mapping[str, str] | None = None,
) -> Any:
    names = {
        "source": task_id.partition("/")[0],
        "task": task_id,
        "quoted": task_id.replace("/", "%2F"),
        "run": house.runs[task_id],
    }
    options: dict[str, Any] = {"headers": dict(headers or {})}
    if asked.body is not None:
        filled = {
            name: value.format(**names) if isinstance(value, str) else value
            for name, value in asked.body.items()
        }
        options["json"] = filled
    if asked.page:
        options["headers"]["accept"] = "text/html"
    return await holder.request(method, asked.path.format(**names), **options)
