"""The way out: what it marks, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import socket

from dicode_mcp.executor.carriers import carries
from dicode_mcp.executor.sandbox.gate.outside import Outside


async def test_a_process_is_a_carrier_from_its_first_connection_until_its_way_out_goes() -> None:
    outside = Outside()
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        made = await outside.connect(ipaddress.ip_address("127.0.0.1"), listener.getsockname()[1])
    outside.release(made)
    assert await asyncio.to_thread(carries, os.getpid())
    # Not closed by anyone: an unclosed socket would be a warning, which is an error in tests.
    del outside
    gc.collect()
    assert not await asyncio.to_thread(carries, os.getpid())
