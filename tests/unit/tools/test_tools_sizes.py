"""What an answer leaves out when it would be too long, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest

from dicode_mcp.tools.sizes import cut, fit_lines, fit_page, fit_run, size


def run(**fields: Any) -> dict[str, Any]:
    """Give a run."""
    base: dict[str, Any] = {
        "run_id": "r1",
        "task": "t",
        "status": "success",
        "trigger": "mcp",
        "logs_tail": [],
    }
    return {**base, **fields}


def line(seq: int, message: str) -> dict[str, Any]:
    """Give a log line."""
    return {"seq": seq, "ts": "2026-01-01T00:00:00.000Z", "level": "info", "message": message}


def test_a_small_run_is_given_whole() -> None:
    small = run(return_value={"a": 1}, output={"kind": "text", "content_type": "x", "body": "b"})
    answer = fit_run(small)
    assert answer.value == small
    assert answer.links == ()


def test_a_long_output_goes_before_the_return_value() -> None:
    output = {"kind": "html", "content_type": "text/html", "body": "x" * 30_000}
    answer = fit_run(run(return_value="kept", output=output))
    assert answer.value["output"] == {"kind": "html", "content_type": "text/html"}
    assert answer.value["output_truncated"] is True
    assert answer.value["return_value"] == "kept"
    assert [link.uri for link in answer.links] == ["dicode://runs/r1"]


def test_a_long_return_value_is_left_out_with_a_link() -> None:
    answer = fit_run(run(return_value=["x" * 30_000]))
    assert "return_value" not in answer.value
    assert answer.value["return_value_truncated"] is True
    assert len(answer.links) == 1


def test_log_tail_and_traceback_are_cut_to_their_end() -> None:
    tail = [line(i, "y" * 1_000) for i in range(20)]
    error = {"code": "script_error", "message": "m", "traceback": "z" * 10_000, "line": 3}
    value = fit_run(run(logs_tail=tail, error=error)).value
    assert value["logs_tail"][-1]["seq"] == 19
    assert len(value["logs_tail"]) < 20
    assert value["logs_tail_truncated"] is True
    assert value["error"]["traceback"].endswith("more characters]")
    assert value["error"]["line"] == 3
    assert size(value) < 20_000


@pytest.mark.parametrize("value", ["x" * 100_000, {"k": list(range(50_000))}, [None] * 20_000])
def test_no_run_is_longer_than_the_budget(value: Any) -> None:
    tail = [line(i, "y" * 60_000) for i in range(20)]
    output = {"kind": "text", "content_type": "t", "body": "x" * 900_000, "data": "y" * 50_000}
    answer = fit_run(run(return_value=value, logs_tail=tail, output=output))
    assert size(answer.value) <= 20_000


async def test_a_page_that_is_too_long_is_fetched_again_with_fewer_items() -> None:
    asked: list[int] = []

    async def fetch(limit: int) -> dict[str, Any]:
        asked.append(limit)
        items = [{"id": str(i), "text": "x" * 1000} for i in range(min(limit, 80))]
        return {"tasks": items, "next_cursor": f"after {items[-1]['id']}"}

    page = await fit_page(fetch, "tasks", 50, 20_000)
    assert size(page) <= 20_000
    assert len(page["tasks"]) >= 15
    assert page["next_cursor"] == f"after {len(page['tasks']) - 1}"
    assert asked[0] == 50


async def test_one_item_is_given_whatever_its_size() -> None:
    async def fetch(limit: int) -> dict[str, Any]:
        return {"tasks": [{"text": "x" * 50_000}] * limit}

    page = await fit_page(fetch, "tasks", 3, 20_000)
    assert len(page["tasks"]) == 1


def test_a_log_page_is_cut_at_the_end_and_says_where_to_go_on() -> None:
    logs = {"run_id": "r", "lines": [line(i, "x" * 900) for i in range(1, 101)], "next_after": 100}
    fitted = fit_lines(logs, 20_000, newest=False)
    assert fitted["lines"][0]["seq"] == 1
    assert fitted["next_after"] == fitted["lines"][-1]["seq"] < 100
    assert size(fitted) < 20_500


def test_a_tail_is_cut_at_its_beginning() -> None:
    logs = {"run_id": "r", "lines": [line(i, "x" * 900) for i in range(1, 101)]}
    fitted = fit_lines(logs, 20_000, newest=True)
    assert fitted["lines"][-1]["seq"] == 100
    assert fitted["truncated"] is True
    assert "next_after" not in fitted


def test_a_page_that_fits_keeps_its_next_after() -> None:
    logs = {"run_id": "r", "lines": [line(1, "a")], "next_after": 1}
    assert fit_lines(logs, 20_000, newest=False) == logs
    assert fit_lines({"lines": []}, 20_000, newest=False) == {"lines": []}


def test_a_cut_text_says_how_much_is_missing() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcde", 3) == "abc … [2 more characters]"
