"""What an agent sees of the tools, with the SDK's own client, over every transport in both eras."""

from __future__ import annotations

import json
from typing import Any

from mcphouse import House, Opening


async def test_a_client_lists_and_calls(connect: Opening, house: House) -> None:
    async with connect() as client:
        tools = await client.list_tools()
        assert [tool.name for tool in tools.tools] == sorted(tool.name for tool in tools.tools)
        result = await client.call_tool("run_task", {"id": "hello", "params": {"who": "Ann"}, "wait_seconds": 5})
    assert not result.is_error
    value: dict[str, Any] = result.structured_content
    assert value["status"] == "success"
    assert value["return_value"]["params"]["who"] == "Ann"
    assert json.loads(result.content[0].text) == value  # type: ignore[union-attr]
