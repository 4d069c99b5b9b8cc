"""JSON Schemas of the wire shapes (SPEC 6.2), written once and shared by the tools.

Input schemas are closed: an unknown argument is an error. Output schemas are open: a later version
may add fields, and a client that validates must not break.
"""

from __future__ import annotations

from typing import Any

from dicode_mcp.runs.logs import Level
from dicode_mcp.runs.model import RunStatus

Schema = dict[str, Any]

LOG_LEVELS = [level.label for level in Level]
RUN_STATUSES = [status.value for status in RunStatus]
MAX_ID = 512
MAX_CURSOR = 1024


def arguments(properties: Schema, *required: str) -> Schema:
    """Make the closed schema of a tool's arguments."""
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    return schema


def shape(properties: Schema, *required: str) -> Schema:
    """Make the open schema of a result."""
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema


def brief(schema: Schema) -> Schema:
    """Give a result's schema by its first level, for tools that answer what another one shows.

    The list of tools is read by every client at its start, so nothing stands in it twice.
    """
    fields: Schema = schema["properties"]
    out: Schema = {
        name: {"type": part["type"]} if "type" in part else {} for name, part in fields.items()
    }
    return {**schema, "properties": out}


def text(description: str, *, max_length: int = MAX_ID, **more: Any) -> Schema:
    """Make a string argument that must not be empty."""
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": max_length,
        "description": description,
        **more,
    }


def whole(description: str, low: int, high: int, default: int | None = None) -> Schema:
    """Make an integer argument with bounds."""
    schema: Schema = {
        "type": "integer",
        "minimum": low,
        "maximum": high,
        "description": description,
    }
    if default is not None:
        schema["default"] = default
    return schema


def flag(description: str, default: bool) -> Schema:
    """Make a boolean argument."""
    return {"type": "boolean", "default": default, "description": description}


TASK_ID = text('Task id as list_tasks gives it, e.g. "reports/daily".')
RUN_ID = text("Run id as run_task or get_runs gives it.", max_length=64)
LIMIT = whole("Most items on this page.", 1, 500, 50)
CURSOR = text("next_cursor of the page before.", max_length=MAX_CURSOR)

_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_BOOLEAN: Schema = {"type": "boolean"}
_OBJECT: Schema = {"type": "object"}
LIST: Schema = {"type": "array", "items": _OBJECT}
"""Of what get_task shows in the same form."""
_TIME: Schema = {"type": "string", "description": "ISO 8601 with zone"}

_CONDITION = shape(
    {
        "type": _STRING,
        "status": {"enum": ["True", "False"]},
        "reason": _STRING,
        "message": _STRING,
        "since": _STRING,
    },
    "type",
    "status",
    "reason",
)
CONDITIONS: Schema = {"type": "array", "items": _CONDITION}

PROBLEMS: Schema = {
    "type": "array",
    "items": shape(
        {
            "file": _STRING,
            "line": _INTEGER,
            "column": _INTEGER,
            "path": _STRING,
            "message": _STRING,
            "hint": _STRING,
        },
        "message",
    ),
}

_ERROR = shape(
    {
        "code": _STRING,
        "message": _STRING,
        "hint": _STRING,
        "file": _STRING,
        "line": _INTEGER,
        "traceback": _STRING,
    },
    "code",
    "message",
)

_RUN_LINE: Schema = {
    "run_id": _STRING,
    "task": _STRING,
    "status": {"enum": RUN_STATUSES},
    "trigger": _STRING,
    "created_at": _TIME,
    "started_at": _STRING,
    "finished_at": _STRING,
    "duration_ms": _INTEGER,
    "reason": _STRING,
    "error": _ERROR,
    "attempt": _INTEGER,
    "parent_run_id": _STRING,
    "replay_of": _STRING,
    "revision": _STRING,
    "hash": _STRING,
    "pinned": _BOOLEAN,
}
_RUN_KEYS = ("run_id", "task", "status", "trigger")

LOG_LINES: Schema = {
    "type": "array",
    "items": shape(
        {"seq": _INTEGER, "ts": _STRING, "level": {"enum": LOG_LEVELS}, "message": _STRING},
        "seq",
        "ts",
        "level",
        "message",
    ),
}

RUN = shape(
    {
        **_RUN_LINE,
        "root_run_id": _STRING,
        "slot": _STRING,
        "catchup": _BOOLEAN,
        "delay_ms": _INTEGER,
        "priority": _INTEGER,
        "cpu_ms": _INTEGER,
        "tokens": _INTEGER,
        "unenforced": _STRING,
        "return_value": {"description": "what the task returned, any JSON"},
        "return_value_truncated": _BOOLEAN,
        "output": shape(
            {
                "kind": _STRING,
                "content_type": _STRING,
                "body": _STRING,
                "base64": _BOOLEAN,
                "name": _STRING,
                "data": {},
            },
            "kind",
            "content_type",
        ),
        "output_truncated": _BOOLEAN,
        "exit_code": _INTEGER,
        "signal": _INTEGER,
        "question": {"type": "object", "description": "number, message, schema, deadline"},
        "answers": LIST,
        "logs_tail": LOG_LINES,
        "logs_tail_truncated": _BOOLEAN,
        "retry_of": _STRING,
        "replay": _OBJECT,
        "not_before": _STRING,
        "attempts": {"type": "array", "items": _STRING},
        "next_attempt": _OBJECT | {"description": "the run that tries again, and when"},
        "tree": LIST,
        "tree_truncated": _BOOLEAN,
        "given": _OBJECT,
        "next": {"type": "string", "description": "the call that helps most now"},
    },
    *_RUN_KEYS,
    "logs_tail",
)

SAME_RUN = shape({"run_id": _STRING, "task": _STRING, "status": _STRING}, *_RUN_KEYS[:3]) | {
    "description": "a run, as get_run shows it"
}

RUNS = shape(
    {
        "runs": {
            "type": "array",
            "items": shape({**_RUN_LINE, "error": _OBJECT, "question": _OBJECT}, *_RUN_KEYS),
        },
        "next_cursor": _STRING,
    },
    "runs",
)

LOGS = shape(
    {
        "run_id": _STRING,
        "status": {"enum": RUN_STATUSES},
        "lines": LOG_LINES,
        "next_after": _INTEGER,
        "truncated": _BOOLEAN,
    },
    "run_id",
    "lines",
)

_WRITTEN: Schema = {
    "layer": {
        "type": "string",
        "description": "task.yaml, defaults of SET, overrides of ENTRY, built-in default",
    },
    "file": _STRING,
    "line": _INTEGER,
}

_TASK_LINE: Schema = {
    "id": _STRING,
    "name": _STRING,
    "description": _STRING,
    "tags": {"type": "array", "items": _STRING},
    "runtime": _STRING,
    "trigger": _OBJECT,
    "webhook_url": _STRING,
    "enabled": _BOOLEAN,
    "kept": {
        "type": "boolean",
        "description": "an older good version is in force; what is written now is not",
    },
    "hash": _STRING,
    "source": _STRING,
    "dev_mode": _BOOLEAN,
    "revision": _STRING,
    "conditions": CONDITIONS,
    "next_run": _TIME,
    "last_run": {"type": "object", "description": "the newest run, as get_runs shows it"},
}
_TASK_KEYS = ("id", "name", "enabled", "source", "conditions")

PENDING: Schema = shape(
    {
        "hash": _STRING,
        "revision": _STRING,
        "grants": {"type": "object", "description": "what it may do"},
        "changes": {"type": "object", "description": "what is new in it: grants, settings, files"},
        "approve": _STRING,
    },
    "hash",
    "grants",
    "changes",
    "approve",
) | {"description": "a version that waits for an approval"}

TASK = shape(
    {
        **_TASK_LINE,
        "spec": {"type": "object", "description": "the manifest in force"},
        "folder": _STRING,
        "files": {
            "type": "array",
            "items": shape({"path": _STRING, "size": _INTEGER}, "path", "size"),
        },
        "files_truncated": _BOOLEAN,
        "budget": _OBJECT,
        "note": _STRING,
        "problems": PROBLEMS,
        "approved": _OBJECT,
        "pending": PENDING,
        "origins": {
            "type": "array",
            "description": "with explain: where each value of spec is written, what it won over",
            "items": shape(
                {"path": _STRING, **_WRITTEN, "over": {"type": "array", "items": _OBJECT}},
                "path",
                "layer",
            ),
        },
    },
    *_TASK_KEYS,
)

TASKS = shape(
    {
        "tasks": {
            "type": "array",
            "items": shape({**_TASK_LINE, "conditions": LIST}, *_TASK_KEYS),
        },
        "next_cursor": _STRING,
        "note": {"type": "string", "description": "why nothing was found, or what is left out"},
    },
    "tasks",
)

VERDICT = shape(
    {"valid": _BOOLEAN, "problems": PROBLEMS, "conditions": LIST, "id": _STRING},
    "valid",
    "problems",
)

_STANDING: Schema = {
    "live": {"type": "boolean", "description": "what is written is in force"},
    "valid": _BOOLEAN,
    "problems": PROBLEMS,
    "conditions": {"type": "array", "items": _OBJECT, "description": "as get_task shows them"},
    "task_hash": _STRING,
}

NEW_TASK = shape(
    {
        "id": _STRING,
        "source": _STRING,
        "folder": _STRING,
        "files": {"type": "array", "items": _STRING},
        **_STANDING,
    },
    "id",
    "files",
    "live",
    "valid",
)

FILE = shape(
    {
        "id": _STRING,
        "path": _STRING,
        "content": _STRING,
        "hash": _STRING,
        "size": _INTEGER,
        "lines": _INTEGER,
        "offset": _INTEGER,
        "next_offset": _INTEGER,
        "truncated": _BOOLEAN,
    },
    "path",
    "content",
    "hash",
)

WRITTEN = shape(
    {
        "id": _STRING,
        "path": _STRING,
        "hash": _STRING,
        "changed": _BOOLEAN,
        "diff": _STRING,
        **_STANDING,
    },
    "path",
    "hash",
    "changed",
    "diff",
    "live",
    "valid",
)

COMMITTED = shape(
    {
        "id": _STRING,
        "commit": _STRING,
        "branch": _STRING,
        "author": _STRING,
        "files": {
            "type": "array",
            "items": shape(
                {
                    "path": _STRING,
                    "change": {"enum": ["added", "modified", "deleted"]},
                    "added": _INTEGER,
                    "removed": _INTEGER,
                },
                "path",
                "change",
            ),
        },
        "added": _INTEGER,
        "removed": _INTEGER,
        "pushed": _BOOLEAN,
        "skipped": {"type": "array", "items": _STRING},
    },
    "commit",
    "branch",
    "files",
    "pushed",
)

SOURCE = shape(
    {
        "name": _STRING,
        "type": {"enum": ["local", "git"]},
        "path": _STRING,
        "url": _STRING,
        "branch": _STRING,
        "tag": _STRING,
        "revision": _STRING,
        "commit": shape(
            {"author": _STRING, "subject": _STRING, "time": _TIME}, "author", "subject", "time"
        ),
        "pinned": _STRING,
        "dev_mode": _BOOLEAN,
        "dev": shape(
            {
                "local_path": _STRING,
                "branch": _STRING,
                "folder": _STRING,
                "dev_refs_only": _BOOLEAN,
                "new_branch": _BOOLEAN,
            }
        ),
        "tasks": _INTEGER,
        "conditions": LIST,
        "problems": LIST,
        "broken": {
            "type": "array",
            "items": shape({"id": _STRING, "message": _STRING}, "id", "message"),
            "description": "the first tasks whose file is not in force as written",
        },
        "off": LIST,
        "broken_count": _INTEGER,
        "broken_rest": {"type": "string", "description": "the call that shows all of them"},
    },
    "name",
    "type",
    "dev_mode",
    "conditions",
)

SOURCES = shape({"sources": {"type": "array", "items": SOURCE}}, "sources")

STATUS = shape(
    {
        "version": _STRING,
        "pid": _INTEGER,
        "started_at": _TIME,
        "uptime_seconds": _INTEGER,
        "data_dir": _STRING,
        "config_file": _STRING,
        "url": _STRING,
        "tasks": {"type": "object", "additionalProperties": _INTEGER},
        "sources": _INTEGER,
        "slots": {"type": "object", "additionalProperties": _INTEGER},
        "asking": _INTEGER,
        "runs_last_24h": {"type": "object", "additionalProperties": _INTEGER},
        "runtimes": {
            "type": "array",
            "items": shape(
                {"name": _STRING, "available": _BOOLEAN, "message": _STRING}, "name", "available"
            ),
        },
        "sandbox": shape(
            {"enforced": _BOOLEAN, "message": _STRING, "facilities": LIST}, "enforced"
        ),
        "notifications": shape(
            {
                "task": _STRING,
                "failing": _INTEGER,
                "last_error": _STRING,
                "last_run_id": _STRING,
            },
            "task",
            "failing",
        ),
        "notes": {"type": "array", "items": _STRING},
    },
    "version",
    "pid",
    "tasks",
)
