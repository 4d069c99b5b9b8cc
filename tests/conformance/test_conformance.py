"""The official MCP conformance suite: a fixture server on our machinery, and the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from fixture_server import fixture_server
from realserver import RealServer
from suite import Verdict, run_suite

pytestmark = pytest.mark.slow

LEGACY, MODERN = "2025-11-25", "2026-07-28"

# Resumable streams are an option of the handshake era that this server does not take: a client
# whose stream broke asks get_run. The suite only warns, in a scenario that it does not score.
NOT_TAKEN = {
    ("server-sse-polling", "server-sse-priming-event"),
    ("server-sse-polling", "server-sse-retry-field"),
}


@pytest.mark.parametrize(
    ("package", "options", "scenarios", "passed"),
    [
        ("conformance-2025", (), 30, 40),
        ("conformance-2026", ("--requirements", LEGACY), 30, 80),
        ("conformance-2026", ("--requirements", MODERN), 49, 190),
    ],
    ids=["0.1.16", "alpha-2025-11-25", "alpha-2026-07-28"],
)
async def test_the_fixture_server_passes_every_scenario(
    tmp_path: Path, package: str, options: tuple[str, ...], scenarios: int, passed: int
) -> None:
    async with fixture_server() as url:
        verdict = await run_suite(package, url, tmp_path, *options)
    print(verdict.summary)
    assert verdict.exit_code == 0, verdict.told()
    assert not verdict.ids("FAILURE"), verdict.told()
    assert verdict.ids("WARNING") <= NOT_TAKEN, verdict.told()
    # A suite that found nothing to check would pass too.
    succeeded = [check for check in verdict.checks if check.status == "SUCCESS"]
    assert len({check.scenario for check in verdict.checks}) >= scenarios
    assert len(succeeded) >= passed, verdict.told()


OF_ANY_SERVER: Mapping[str, tuple[str, ...]] = {
    LEGACY: (
        "server-initialize",
        "ping",
        "logging-set-level",
        "tools-list",
        "resources-list",
        "resources-subscribe",
        "resources-unsubscribe",
        "prompts-list",
        "completion-complete",
        "server-session-lifecycle",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
    ),
    MODERN: (
        "server-stateless",
        "tools-list",
        "resources-list",
        "prompts-list",
        "completion-complete",
        "caching",
        "sep-2164-resource-not-found",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "http-header-validation",
        "input-required-result-unsupported-methods",
    ),
}
"""What the suite asks of every server, whatever its tools are."""

# These checks call tools or complete a prompt by names that only a test server has. The fixture
# server passes them; here the suite says that it found nothing to call.
NAMES_OF_A_TEST_SERVER = {
    ("completion-complete", "completion-complete"),
    ("server-stateless", "sep-2575-server-rejects-undeclared-capability"),
    ("server-stateless", "sep-2575-missing-capability-http-400"),
    ("server-stateless", "sep-2575-http-server-no-independent-requests-on-stream"),
    ("server-stateless", "sep-2575-server-no-log-without-loglevel"),
    ("server-stateless", "sep-2575-server-sends-prompts-list-changed-on-subscription"),
    ("server-stateless", "sep-2575-server-sends-tools-list-changed-on-subscription"),
}


@pytest.mark.parametrize("version", [LEGACY, MODERN])
async def test_the_server_passes_what_is_asked_of_every_server(
    real_server: RealServer, tmp_path: Path, version: str
) -> None:
    room = asyncio.Semaphore(2)

    async def one(scenario: str) -> Verdict:
        async with room:
            return await run_suite(
                "conformance-2026",
                real_server.url,
                tmp_path / "results" / scenario,
                "--scenario",
                scenario,
                "--spec-version",
                version,
            )

    verdicts = await asyncio.gather(*(one(scenario) for scenario in OF_ANY_SERVER[version]))
    for verdict in verdicts:
        assert verdict.checks, verdict.summary
        bad = verdict.ids("FAILURE", "WARNING")
        assert bad <= NAMES_OF_A_TEST_SERVER, verdict.told()
        assert verdict.ids("SUCCESS") - NAMES_OF_A_TEST_SERVER, verdict.told()
