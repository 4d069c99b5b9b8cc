"""How orders and answers are written as JSON."""

from __future__ import annotations

from pydantic import TypeAdapter

from dicode_mcp.sources.working.model import Answer, Order

ORDER = TypeAdapter(Order)
ANSWER = TypeAdapter(Answer)
