"""What a run was started with, as it may be shown: kept whole and sealed, shown without secrets.

Left out are fields whose names tell, and the values that the runs before it were not to show. Where
it cannot be said any more what those were, nothing is shown.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Store
from dicode_mcp.runs.model import Payload, Run
from dicode_mcp.runs.redaction import Redactor
from dicode_mcp.runs.sensitive import hidden

MOST = 4_000
"""Characters of one part; a longer one is cut."""


class Known(Protocol):
    """What knows which values are hidden in a run."""

    async def hiding(self, run: Run) -> Redactor | None:
        """Give what hides all that ``run`` may have been started with; None when unsure."""
        ...


class RunInputs:
    """Reads payloads for those who ask."""

    def __init__(self, store: Store, known: Known) -> None:
        self._store = store
        self._known = known

    async def shown(self, run: Run) -> dict[str, Any]:
        """Show ``{params?, input?, request?}``, or ``{withheld}``: a sentence that says why not."""
        try:
            payload = await self._store.get_payload(run.id)
        except DicodeError as error:
            if error.code is not Code.SECRETS_LOCKED:
                raise
            return {"withheld": error.message}
        if payload is None:
            return {}
        if payload.dropped:
            return {"withheld": "it was not kept (run_inputs)"}
        hide = await self._known.hiding(run)
        if hide is None:
            return {
                "withheld": "it came from a run with secrets, before the server was started again:"
                " which values these were is not known any more"
            }
        return {name: _cut(hide.value(hidden(part))) for name, part in _parts(payload).items()}


def _parts(payload: Payload) -> dict[str, Any]:
    parts = {"params": dict(payload.params) or None, "input": payload.input}
    parts["request"] = None if payload.request is None else dict(payload.request)
    return {name: part for name, part in parts.items() if part is not None}


def _cut(value: Any) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= MOST:
        return value
    return f"{text[:MOST]}… ({len(text)} characters as JSON)"
