"""Tasks that a set writes out itself, as folders: named by their content, made once, never changed.

Knows nothing of layers: what is written is the task's own part.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dicode_mcp.spec.problems import SpecError, choices, problem_at
from dicode_mcp.spec.taskset.parts import moved
from dicode_mcp.spec.texts import with_texts
from dicode_mcp.spec.yaml12 import Document

_SCRIPTS = {"python": "task.py", "deno": "task.ts", "ts": "task.ts", "js": "task.js"}
_SCRIPT = "script"


def manifest_of(inline: Document) -> Document:
    """Give the manifest of an inline task: all but its script. Raises ``SpecError``."""
    data = with_texts(inline)
    if not isinstance(data, Mapping):
        raise _fault(inline, (), "must be a map: a manifest with 'script: |'")
    fields = cast("Mapping[str, Any]", data)
    script = fields.get(_SCRIPT)
    name = _SCRIPTS.get(str(fields.get("runtime")))
    if name is not None and not isinstance(script, str):
        raise _fault(inline, (_SCRIPT,), "is required and must be text", "add 'script: |'")
    if name is None and script is not None:
        hint = choices(fields.get("runtime"), _SCRIPTS)
        raise _fault(inline, (_SCRIPT,), "belongs to a runtime that has a script", hint)
    kept = {key: value for key, value in fields.items() if key != _SCRIPT}
    return Document(inline.file, kept, inline.places, inline.texts)


def materialise(inline: Document, below: Path) -> Path:
    """Make the folder of an inline task below ``below``, unless it is there. Raises ``SpecError``.

    Blocks.
    """
    manifest = manifest_of(inline)
    script = cast("Mapping[str, Any]", inline.data).get(_SCRIPT)
    text = json.dumps(manifest.data, indent=1, ensure_ascii=False) + "\n"
    content = json.dumps([text, script]).encode()
    goal = below / hashlib.sha256(content).hexdigest()[:40]
    if not goal.is_dir():
        files = {"task.yaml": text}
        if script is not None:
            files[_SCRIPTS[str(manifest.data["runtime"])]] = str(script)
        _write(goal, files)
    return goal


def _write(goal: Path, files: Mapping[str, str]) -> None:
    goal.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=goal.parent))
    try:
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
            (new / name).chmod(0o444)
        new.chmod(0o755)
        os.rename(new, goal)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        if not goal.is_dir():
            raise


def _fault(inline: Document, path: tuple[str, ...], message: str, hint: str = "") -> SpecError:
    problem = problem_at(path, message, hint, places=inline.places, file=inline.file)
    return SpecError([moved(problem, "inline")])
