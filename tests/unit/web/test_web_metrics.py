"""What a Prometheus server reads at ``/metrics``."""

from __future__ import annotations

import re

from apihouse import ApiHouse

from dicode_mcp.events import EventBus, RunChanged
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.service.meter import OTHERS, Meter
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.web.metrics import MEDIA_TYPE, Page

SAMPLE = re.compile(
    r'([a-z_]+)(?:\{([a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*)\})?'
    r" (-?[0-9.e+-]+)"
)


def samples(text: str) -> dict[tuple[str, str], float]:
    """Read a page as a scraper does: every sample below its family's head, none twice."""
    assert text.endswith("\n")
    found: dict[tuple[str, str], float] = {}
    families: list[str] = []
    for line in text.splitlines():
        head = re.fullmatch(r"# (HELP|TYPE) ([a-z_]+) (.+)", line)
        if head:
            if head[1] == "TYPE":
                assert head[3] in ("counter", "gauge", "histogram")
                families.append(head[2])
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1].startswith(families[-1])
        key = (sample[1], sample[2] or "")
        assert key not in found
        found[key] = float(sample[3])
    assert len(set(families)) == len(families)
    return found


async def test_runs_queue_and_build_are_told() -> None:
    house = ApiHouse()
    house.put("hello")
    house.put("bad")
    house.ends["bad"] = RunStatus.FAILURE
    async with house.client() as client:
        for task in ("hello", "hello", "bad"):
            assert (await client.post(f"/api/tasks/{task}/run?wait=20")).status_code == 200
        await until(lambda: house.meter.ended["bad"]["failure"])
        answer = await client.get("/metrics")
    assert answer.headers["content-type"] == MEDIA_TYPE
    found = samples(answer.text)
    assert found["dicode_build_info", 'version="9.9.9"'] == 1
    assert found["dicode_runs_total", 'task="hello",status="success"'] == 2
    assert found["dicode_runs_total", 'task="bad",status="failure"'] == 1
    assert found["dicode_run_duration_seconds_count", ""] == 3
    assert found["dicode_run_duration_seconds_bucket", 'le="+Inf"'] == 3
    assert found["dicode_queue_depth", ""] == 0
    assert found["dicode_runs_running", ""] == 0
    assert found["dicode_slots", ""] > 0
    assert found["dicode_tasks", 'state="ready"'] == 2
    assert found["dicode_source_synced", 'source="tests"'] == 1
    assert found["dicode_reconcile_errors", 'source="tests"'] == 0


async def test_buckets_grow_and_the_sum_fits() -> None:
    meter = Meter(EventBus())
    for ms in (0, 5, 6, 900, 10_000_000):
        meter.count(RunChanged("r", "t", "success", ms))
    meter.count(RunChanged("r", "t", "skipped"))
    page = Page()
    page.histogram("d", "h", (0.005, 1), [2, 2, 1], meter.lasted_s)
    found = samples(page.text())
    assert [found["d_bucket", f'le="{le}"'] for le in ("0.005", "1", "+Inf")] == [2, 4, 5]
    assert sum(meter.lasted) == 5
    assert found["d_sum", ""] == 10_000.911
    assert meter.ended["t"] == {"success": 5, "skipped": 1}


def test_names_that_could_break_the_format_are_escaped() -> None:
    page = Page()
    page.family("x", "gauge", "a\nb\\c", [({"task": 'a"b\\c\nd'}, 0.5)])
    assert page.text() == '# HELP x a\\nb\\\\c\n# TYPE x gauge\nx{task="a\\"b\\\\c\\nd"} 0.5\n'


async def test_the_number_of_task_names_is_bounded() -> None:
    bus = EventBus()
    meter = Meter(bus, most_tasks=2)
    async with running(meter.run()):
        await until(lambda: bus._subscriptions)  # pyright: ignore[reportPrivateUsage]
        for number in range(5):
            bus.publish(RunChanged("r", f"t{number}", "running"))
            bus.publish(RunChanged("r", f"t{number}", "success"))
        await until(lambda: sum(c["success"] for c in meter.ended.values()) == 5)
    assert set(meter.ended) == {"t0", "t1", OTHERS}
    assert meter.ended[OTHERS]["success"] == 3
