"""What a running Python task prints and logs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from runhouse import House

from dicode_mcp.runs.logs import Level, read_line


async def test_print_and_log_keep_their_order_and_levels(house: House) -> None:
    ended = await house.run(
        r"""
        import os, sys
        print("one")
        log.debug("two")
        print("three", end="")
        log.warn("four\nlines", 4)
        os.write(1, b"five\n")
        log.error("six")
        sys.stderr.write("to stderr\n")
        """
    )
    stdout = [read_line(line.stream, line.text) for line in ended.lines if line.stream == "stdout"]
    assert stdout == [
        (Level.INFO, "one"),
        (Level.DEBUG, "two"),
        (Level.INFO, "three"),
        (Level.WARN, "four\nlines 4"),
        (Level.INFO, "five"),
        (Level.ERROR, "six"),
    ]
    assert (Level.WARN, "to stderr") in ended.log


async def test_a_line_of_a_megabyte_is_cut_and_marked(house: House) -> None:
    ended = await house.run('print("é" * 1_000_000)\nprint("after")\n')
    first = ended.lines[0].text
    assert len(first.encode()) <= 64 * 1024
    assert first.endswith("[line cut at 64 KiB]")
    assert ended.messages[1] == "after"


async def test_a_long_log_message_keeps_its_level(house: House) -> None:
    ended = await house.run('log.error("\\x01" * 100_000)\nlog.error("y" * 100_000)')
    assert [level for level, _ in ended.log] == [Level.ERROR, Level.ERROR]


@pytest.mark.parametrize("newline", ["\\n", ""])
async def test_a_flood_of_output_does_not_hold_up_the_server(house: House, newline: str) -> None:
    turns = 0
    stop = False

    async def watch() -> None:
        nonlocal turns
        while not stop:
            await asyncio.sleep(0.001)
            turns += 1

    before = _rss()
    watcher = asyncio.create_task(watch())
    ended = await house.run(
        f"""
        import sys
        chunk = ("y" * 63 + "{newline}") * 16384
        for _ in range(200):
            sys.stdout.write(chunk)
        result = "done"
        """
    )
    stop = True
    await watcher
    assert ended.value == "done"
    assert ended.exit.dropped_bytes > 190_000_000
    parts = sum("left out here" in line.text for line in ended.lines)
    kept = 1024 * 1024 + parts * (256 * 1024 + 100)
    assert sum(len(line.text) + 1 for line in ended.lines) <= kept
    # 3,200 reads of 64 KiB: the loop turned between them, how quickly is for the benchmarks.
    assert turns > 50
    assert _rss() - before < 32 * 1024


def _rss() -> int:
    text = Path("/proc/self/status").read_text() if sys.platform == "linux" else "VmRSS: 0"
    return int(text.partition("VmRSS:")[2].split()[0])
