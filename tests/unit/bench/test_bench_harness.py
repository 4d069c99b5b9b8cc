"""The pure parts of the benchmarks: figures, verdicts, the table, the JSON, choosing rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.figures import Figure, Limit, Result, Verdict, figure, median, percentile, show
from bench.folders import write_reports
from bench.report import Failed, Setting, document, heading, table
from bench.rows import ALL, select
from bench.rows.start import read_once
from bench.wire import call_message, http_request
from dicode_mcp.spec.loader import validate_text

ROOT = Path(__file__).parents[3]

SETTING = Setting("2026-05-01T10:00:00+00:00", True, "3.11.7", "Linux 6.1", 2, 0.5, 0.75, 12.4)


def result(
    p50: float,
    *limits: Limit,
    p99: float | None = None,
    floor: float | None = None,
    applies_from: str = "",
) -> Result:
    return Result(
        name="row",
        what="something is measured",
        ours=Figure("ours", "ms", 100, p50, p99),
        floor=None if floor is None else Figure("the floor", "ms", 50, floor),
        limits=limits,
        applies_from=applies_from,
    )


@pytest.mark.parametrize(
    ("samples", "percent", "wanted"),
    [
        ([5.0], 99, 5.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 100, 100.0),
        ([float(n) for n in range(1, 1001)], 99, 990.0),
        ([1.0, 2.0], 1, 1.0),
    ],
)
def test_a_percentile_is_the_nearest_sample_that_so_many_do_not_exceed(
    samples: list[float], percent: float, wanted: float
) -> None:
    assert percentile(samples, percent) == wanted


@pytest.mark.parametrize("percent", [0, -1, 101])
def test_a_percent_outside_its_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="percent"):
        percentile([1.0], percent)


def test_nothing_measured_has_neither_median_nor_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        median([])
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert median([4.0, 1.0, 2.0, 10.0]) == 3.0
    assert median([4.0, 1.0, 2.0]) == 2.0


def test_few_samples_have_no_99th_percentile() -> None:
    assert figure("x", "ms", [1.0] * 19).p99 is None
    assert figure("x", "ms", [1.0] * 20).p99 == 1.0


def test_the_order_of_samples_does_not_matter_and_they_stay_as_they_are() -> None:
    samples = [3.0, 1.0, 2.0]
    assert figure("x", "ms", samples) == Figure("x", "ms", 3, 2.0)
    assert samples == [3.0, 1.0, 2.0]


def test_a_ratio_is_our_median_over_the_floors() -> None:
    assert result(12.0, floor=8.0).ratio == 1.5
    assert result(12.0).ratio is None
    assert result(12.0, floor=0.0).ratio is None


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (result(15.0, Limit("p50", "<=", 15)), Verdict.OK),
        (result(15.1, Limit("p50", "<=", 15)), Verdict.OVER),
        (result(9.0, Limit("p50", "<=", 15), Limit("p99", "<=", 60), p99=61.0), Verdict.OVER),
        (result(9.0, Limit("p50", "<=", 15), Limit("p99", "<=", 60), p99=60.0), Verdict.OK),
        (result(9.0, Limit("ratio", ">=", 0.85), floor=10.0), Verdict.OK),
        (result(8.0, Limit("ratio", ">=", 0.85), floor=10.0), Verdict.OVER),
        (result(8.0, Limit("ratio", "<=", 1.5)), Verdict.OVER),
        (result(8.0, Limit("p99", "<=", 60)), Verdict.OVER),
        (result(99.0, Limit("p50", "<=", 15), applies_from="issue D"), Verdict.LATER),
        (result(99.0), Verdict.NONE),
    ],
)
def test_a_result_is_ok_only_when_every_limit_was_measured_and_holds(
    measured: Result, verdict: Verdict
) -> None:
    assert measured.verdict is verdict


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.789, "ms", "0.79 ms"),
        (15.0, "ms", "15 ms"),
        (12.34, "ms", "12.3 ms"),
        (1234.5, "ms", "1234 ms"),
        (0.5, "%", "0.5 %"),
        (20_000.0, "/s", "20,000/s"),
        (100.0, "MB", "100 MB"),
    ],
)
def test_values_are_shown_in_few_digits_with_their_unit(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text  # pyright: ignore[reportArgumentType]


def test_a_budget_is_shown_in_the_units_of_its_row() -> None:
    row = result(1.0, Limit("p50", "<=", 15), Limit("ratio", ">=", 0.85))
    assert row.budget == "p50 ≤ 15 ms, ≥ 0.85 of the floor"


def test_the_table_has_each_figure_and_its_verdict_in_one_line() -> None:
    lines = table([result(12.0, Limit("ratio", "<=", 1.3), p99=20.0, floor=8.0)]).splitlines()
    assert lines[0].split() == "ROW OURS p50 p99 FLOOR p50 RATIO n BUDGET VERDICT".split()
    assert lines[2].split() == "row 12 ms 20 ms 8 ms 1.50 100 ≤ 1.3 of the floor OVER".split()
    assert "row: something is measured; floor: the floor (n 50)." in lines


def test_what_is_not_there_is_a_dash_in_the_table() -> None:
    lines = table([result(12.0)]).splitlines()
    assert lines[2].split() == ["row", "12", "ms", "-", "-", "-", "100", "-", "-"]


def test_the_table_says_when_a_budget_begins_to_apply_and_whether_it_holds_already() -> None:
    early = result(10.0, Limit("p50", "<=", 15), applies_from="issue D")
    assert "the budget applies from issue D; it already holds." in " ".join(table([early]).split())
    late = result(20.0, Limit("p50", "<=", 15), applies_from="issue D")
    assert "applies from issue D; it is not met now." in " ".join(table([late]).split())


def test_an_empty_table_is_its_heading() -> None:
    assert table([]).splitlines()[0].startswith("ROW")


def test_the_heading_says_on_what_machine_and_how_busy() -> None:
    text = heading(SETTING)
    assert text == (
        "quick run, 2 cores, load 0.5 before and 0.8 after, Python 3.11.7, Linux 6.1, 12 s"
    )


def test_the_json_has_all_that_the_table_has() -> None:
    measured = result(12.0, Limit("ratio", "<=", 1.3), p99=20.0, floor=8.0)
    made = json.loads(json.dumps(document(SETTING, [measured], [Failed("idle", "no /proc")])))
    (row,) = made["rows"]
    assert row["ours"] == {"label": "ours", "unit": "ms", "n": 100, "p50": 12.0, "p99": 20.0}
    assert (row["ratio"], row["verdict"], row["within"]) == (1.5, "OVER", False)
    assert made["failed"] == [{"name": "idle", "why": "no /proc"}]
    assert made["setting"]["quick"] is True


def test_rows_are_chosen_by_name_in_the_order_of_the_table() -> None:
    assert [row.name for row in select(["list", "run"])] == ["run", "list"]
    assert select([]) == list(ALL)
    with pytest.raises(KeyError, match="lsit"):
        select(["list", "lsit"])


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ALL}) == len(ALL)


def test_an_unknown_row_is_wrong_usage_and_the_known_ones_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--only", "nothing"]) == 2
    assert "no row named nothing; there are: reload, git, run," in capsys.readouterr().err


def test_the_rows_can_be_listed_without_measuring(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == [row.name for row in ALL]


def test_the_tasks_that_are_measured_with_are_valid(tmp_path: Path) -> None:
    write_reports(tmp_path, 3)
    manifests = sorted(tmp_path.glob("*/task.yaml"))
    assert [path.parent.name for path in manifests] == [f"report-0000{n}" for n in range(3)]
    for path in manifests:
        assert validate_text(path.read_text(), path.name, {"python": ("task.py",)}) == []


def test_the_floor_of_the_start_reads_every_task(tmp_path: Path) -> None:
    write_reports(tmp_path, 2)
    assert read_once(tmp_path) > 0
    (tmp_path / "report-00001" / "task.yaml").write_text("a: [")
    with pytest.raises(Exception, match="expected"):
        read_once(tmp_path)


def test_a_request_over_http_says_its_length_and_its_tool() -> None:
    head, _, body = http_request(8080, "get_status", {}).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Mcp-Name: get_status" in head
    assert body == call_message("get_status", {})


@pytest.mark.slow
def test_a_quick_run_prints_a_row_and_writes_it_as_json(tmp_path: Path) -> None:
    out = tmp_path / "out" / "bench.json"
    argv = [sys.executable, "-m", "bench", "--quick", "--only", "list", "--json", str(out)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "list.25" in done.stdout
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["list.25"]
    assert all(row["ratio"] > 1 for row in rows)
