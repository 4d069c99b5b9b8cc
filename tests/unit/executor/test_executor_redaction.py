"""What a process writes is shown without the secrets it was given, however it writes them."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.protocols import Launch, RawLine, SandboxPolicy
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.runs.redaction import Redactor, forms
from dicode_mcp.spec.model import Permissions

SECRET = "c4nary-0f-the-m1ne"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END KEY-----"


class Shown:
    def __init__(self, executor: SpawnExecutor, folder: Path) -> None:
        self.executor = executor
        self.folder = folder
        self.lines: list[str] = []

    def sink(self, lines: Sequence[RawLine]) -> None:
        self.lines += [line.text for line in lines]

    async def of(self, script: str) -> str:
        """Run Python and give what a log would show of it."""
        launch = Launch(
            (sys.executable, "-I", "-S", "-c", f"import os, sys, time\n{script}"),
            {"TOKEN": SECRET, "PEM": PEM},
            self.folder,
            SandboxPolicy(Permissions(), self.folder, self.folder),
            run_id="run-1",
            instance_id=f"unit-{os.getpid()}",
            hide=Redactor({"TOKEN": SECRET, "PEM": PEM}),
        )
        ended = await (await self.executor.start(launch, self.sink)).wait()
        assert ended.exit_code == 0, self.lines
        text = "\n".join(self.lines)
        for form in forms(SECRET) | forms(PEM):
            assert form.decode() not in text
        return text


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncGenerator[Shown]:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), LogLimits(20_000, 200)) as executor:
        yield Shown(executor, tmp_path)


async def test_a_secret_in_a_line_is_shown_by_its_name(shown: Shown) -> None:
    assert await shown.of("print('got', os.environ['TOKEN'])") == "got [secret TOKEN]"


async def test_a_secret_split_over_writes_does_not_get_through(shown: Shown) -> None:
    script = (
        "for letter in os.environ['TOKEN']:\n"
        "    os.write(1, letter.encode()); time.sleep(0.002)\n"
        "os.write(1, b' end\\n')"
    )
    assert await shown.of(script) == "[secret TOKEN] end"


async def test_the_beginning_of_a_secret_at_the_very_end_is_shown(shown: Shown) -> None:
    assert await shown.of("os.write(1, b'half: c4nary-0f')") == "half: c4nary-0f"


async def test_a_secret_of_several_lines_is_hidden_whole_and_line_by_line(shown: Shown) -> None:
    text = await shown.of("print(os.environ['PEM']); print(os.environ['PEM'].splitlines()[1])")
    assert text.splitlines() == ["[secret PEM]", "[secret PEM]"]


async def test_base64_around_a_secret_is_hidden(shown: Shown) -> None:
    encoded = base64.b64encode(b"user:" + SECRET.encode()).decode()
    assert "[secret TOKEN]" in await shown.of(f"print('Basic {encoded}')")


async def test_a_secret_across_the_cut_of_a_long_line_is_hidden(shown: Shown) -> None:
    for before in (65_536 - 9, 65_536 - 30, 65_400):
        await shown.of(f"print('x' * {before} + os.environ['TOKEN'] + 'y' * 70_000)")


@pytest.mark.parametrize("between", ["\\n", "x"])
async def test_a_flood_shows_its_end_without_the_secret(shown: Shown, between: str) -> None:
    script = (
        f"piece = (os.environ['TOKEN'] + '{between}').encode() * 50_000\n"
        "for _ in range(4): sys.stdout.buffer.write(piece)\n"
        "print('the end')"
    )
    text = await shown.of(script)
    assert text.endswith("the end" if between == "\\n" else "[line cut at 64 KiB]")
    tails = [SECRET[n:] for n in range(1, len(SECRET) - 5)]
    assert not any(tail in text for tail in tails)


async def test_marks_longer_than_the_secret_break_no_limit_of_a_line(shown: Shown) -> None:
    text = await shown.of("sys.stdout.write(os.environ['TOKEN'] * 8_000 + '\\nend\\n')")
    assert max(len(line.encode()) for line in text.splitlines()) <= 65_536
    assert text.endswith("end")
