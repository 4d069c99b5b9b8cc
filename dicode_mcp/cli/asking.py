"""What a run asks while it is followed, put to whoever sits at the terminal."""

from __future__ import annotations

import sys
from typing import Any, cast

from dicode_mcp.cli.client import Client
from dicode_mcp.cli.failures import ToolFailed
from dicode_mcp.cli.render import Terminal, one_line


def somebody_there() -> bool:
    """Tell whether a human can be asked here."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class Asker:
    """Asks what a run asks while it is followed; each question once."""

    def __init__(self, terminal: Terminal, client: Client, run_id: str) -> None:
        self._terminal = terminal
        self._client = client
        self._run_id = run_id
        self._seen = 0

    def look(self) -> None:
        """Ask, or say how to answer where nobody is there to be asked."""
        run = self._client.call("get_run", {"run_id": self._run_id})
        question = cast("dict[str, Any]", run.get("question") or {})
        if not question or question["number"] == self._seen:
            return
        self._seen = question["number"]
        if not somebody_there():
            self._terminal.note(f"the run asks: {one_line(str(question['message']))}")
            self._terminal.note(f"answer with: dicode answer {self._run_id}")
            return
        # Only now: most runs ask nothing, and every command counts its milliseconds.
        from dicode_mcp.cli.forms import prompt

        answer = prompt(self._terminal, question)
        if answer is None:
            self._terminal.note(f"the question stays open: dicode answer {self._run_id}")
            return
        arguments = {"run_id": self._run_id, "question": self._seen, "answer": answer}
        try:
            self._client.call("answer_run", {**arguments, "wait_seconds": 0})
        except ToolFailed as refused:
            # Somebody was quicker, or its time was over: the run says how it goes on.
            self._terminal.note(refused.message)
