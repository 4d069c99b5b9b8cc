"""The plain page, as a browser gets it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from pagehouse import ME, PageHouse, Seen
from starlette.requests import Request

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.registry import Entry, SourceState
from dicode_mcp.runs.logs import MAX_LINE_BYTES
from dicode_mcp.runs.model import Output, RunError, RunStatus
from dicode_mcp.spec.problems import Problem
from dicode_mcp.testing.callers import owned_by
from dicode_mcp.testing.rooms import SOURCE
from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.web.app import Readiness
from dicode_mcp.web.page_runs import LOG_CHARS, LOG_LINES
from dicode_mcp.web.problems import MEDIA_TYPE
from dicode_mcp.web.server import HttpServer

READY = Condition(ConditionType.READY, True, "Loaded")
HOSTILE = '<script>alert(1)</script>"\' onclick="x" &\u202egnp.exe\u200b\x07'


@pytest.fixture
def house() -> PageHouse:
    return PageHouse()


async def get(house: PageHouse, path: str) -> Seen:
    """Open a page that is there."""
    async with house.browser() as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Seen(answer.text)


def row(seen: Seen, start: str) -> str:
    """Give the text from ``start`` on, a row's length of it."""
    at = seen.text.index(start)
    return seen.text[at : at + 200]


async def test_the_overview_shows_each_task_with_state_trigger_next_and_last_run(
    house: PageHouse,
) -> None:
    house.put(
        "nightly",
        READY,
        description="Counts the day",
        trigger={"cron": "0 3 * * *", "timezone": "Europe/Berlin"},
    )
    house.next_runs["nightly"] = house.rooms.clock.now_ms() + 3 * 3_600_000 + 5_000
    run = await house.ran("nightly", RunStatus.SUCCESS)
    house.rooms.clock.advance(120)
    seen = await get(house, "/")
    line = row(seen, "nightly Counts the day")
    assert "ready cron 0 3 * * * Europe/Berlin in 2 h success 2 min ago" in line
    assert f"/runs/{run}" in seen.links
    assert "/tasks/nightly" in seen.links


async def test_broken_paused_and_contested_tasks_say_why(house: PageHouse) -> None:
    broken = Condition(ConditionType.READY, False, "InvalidSpec", "task.yaml:3: trigger is missing")
    house.put_entry(Entry("never", SOURCE, Path("/srv/tasks/never"), None, (broken,)))
    house.put("old", broken)
    house.put("held", READY)
    house.rooms.pause("held")
    house.put("mine", READY)
    house.put_entry(Entry("mine", "zweite", Path("/elsewhere/mine"), None, (READY,)))
    house.put("loop", READY, Condition(ConditionType.CRASH_LOOPING, True, "Exits", "5 times"))
    seen = await get(house, "/")
    for text in (
        "never broken task.yaml:3: trigger is missing",
        "old broken task.yaml:3: trigger is missing manual",
        "held paused Paused",
        "mine conflict the id 'mine' belongs to source 'tests'",
        "loop crash-looping 5 times",
    ):
        assert text in seen.text
    only = await get(house, "/?status=paused")
    assert "held" in only.text
    assert "/tasks/old" not in only.links


async def test_the_search_finds_by_words_and_says_when_nothing_is_like_that(
    house: PageHouse,
) -> None:
    house.put("a", READY, description="Slack digest")
    house.put("b", READY, description="Backup")
    assert "/tasks/b" not in (await get(house, "/?q=slack")).links
    none = await get(house, "/?q=zebra")
    assert "No task is like that." in none.text
    (field,) = [a for a in none.all("input") if a["name"] == "q"]
    assert field["value"] == "zebra"


async def test_a_long_list_of_tasks_comes_in_pages(house: PageHouse) -> None:
    for number in range(120):
        house.put(f"t{number:03}", READY)
    first = await get(house, "/?status=ready")
    (more,) = [link for link in first.links if "cursor=" in link]
    assert "status=ready" in more
    second = await get(house, more)
    shown = [page.links.count("/tasks/t119") for page in (first, second)]
    assert shown == [0, 1]
    assert not [link for link in second.links if "cursor=" in link]


async def test_without_tasks_the_overview_says_where_to_put_one(house: PageHouse) -> None:
    seen = await get(house, "/")
    assert "make a folder with a task.yaml below /srv/tasks ." in seen.text
    assert "No runs." in seen.text


async def test_the_overview_warns_that_permissions_do_not_hold_and_while_it_starts(
    house: PageHouse,
) -> None:
    house.readiness = Readiness.STARTING
    seen = await get(house, "/")
    assert "Permissions are not enforced here." in seen.text
    assert "reading its sources" in seen.text
    house.readiness = Readiness.DRAINING
    assert "takes no more runs" in (await get(house, "/")).text


async def test_sources_show_their_conditions_and_problems(house: PageHouse) -> None:
    unsynced = Condition(ConditionType.SYNCED, False, "FetchFailed", "the remote is not there")
    problem = Problem("x", 0, 0, "", "a folder cannot be read")
    state = SourceState("team", "git", "https://example.org/t.git", None, (unsynced,))
    house.rooms.registry.put_source(state)
    other = SourceState("near", "local", "/near", None, (READY,), problems=(problem,))
    house.rooms.registry.put_source(other)
    seen = await get(house, "/")
    assert "team git broken the remote is not there https://example.org/t.git" in seen.text
    assert "near local ready x a folder cannot be read /near" in seen.text


async def test_a_failed_run_names_file_and_line_and_shows_value_and_log(house: PageHouse) -> None:
    house.put("job", READY)
    error = RunError("script_error", "KeyError: 'city'", "add the key", "task.py", 7, "Trace …")
    now = house.rooms.clock.now_ms()
    run = await house.ran(
        "job",
        RunStatus.FAILURE,
        error=error,
        reason="script_error",
        started_at_ms=now,
        finished_at_ms=now + 1500,
        return_value='{"n": [1, 2]}',
        output=Output("html", "text/html", "<b>bold</b>"),
        exit_code=1,
    )
    await house.wrote(run, ["first", "  indented"])
    seen = await get(house, f"/runs/{run}")
    for text in (
        "failure",
        "In task.py:7 KeyError: 'city' add the key Traceback Trace …",
        "2026-01-01 00:00:00 UTC",
        "Took 1.5 s",
        "Exit code 1",
        'Return value { "n": [ 1, 2 ] }',
        "Output text/html, 11 characters <b>bold</b>",
        "1 00:00:00.001 info first 2 00:00:00.001 info indented",
    ):
        assert text in seen.text
    assert "b" not in {name for name, _ in seen.elements} - {"body"}
    assert "/tasks/job" in seen.links


async def test_only_a_run_that_is_on_refreshes_by_itself(house: PageHouse) -> None:
    house.put("job", READY)
    on = await house.ran("job", RunStatus.RUNNING)
    ended = await house.ran("job", RunStatus.SUCCESS)

    async def refreshes(path: str) -> bool:
        metas = (await get(house, path)).all("meta")
        return any(meta.get("http-equiv") == "refresh" for meta in metas)

    assert await refreshes(f"/runs/{on}")
    for path in (f"/runs/{on}?still=1", f"/runs/{on}?after=0", f"/runs/{ended}", "/", "/runs"):
        assert not await refreshes(path)
    assert "Nothing yet." in (await get(house, f"/runs/{on}")).text
    assert "The run wrote nothing." in (await get(house, f"/runs/{ended}")).text


async def test_a_long_log_comes_in_parts_that_leave_nothing_out(house: PageHouse) -> None:
    house.put("job", READY)
    run = await house.ran("job", RunStatus.SUCCESS)
    count = 2 * LOG_LINES + 50
    await house.wrote(run, [f"line-{n}." for n in range(1, count + 1)])
    end = await get(house, f"/runs/{run}")
    assert f"line-{count}." in end.text
    assert "line-1." not in end.text
    assert f"/runs/{run}?after={LOG_LINES - 150}" in end.links
    path, shown = f"/runs/{run}?after=0", ""
    for _ in range(3):
        seen = await get(house, path)
        shown += seen.text
        later = [link for link in seen.links if "after=" in link and link != path]
        path = max(later, key=lambda link: int(link.rsplit("=", 1)[1]), default=path)
    assert all(f"line-{n}." in shown for n in range(1, count + 1))


async def test_a_log_of_huge_lines_makes_no_huge_page(house: PageHouse) -> None:
    house.put("job", READY)
    run = await house.ran("job", RunStatus.SUCCESS)
    await house.wrote(run, [f"<{n}>" + "<" * (MAX_LINE_BYTES - 10) for n in range(40)])
    async with house.browser() as client:
        end = await client.get(f"/runs/{run}")
        start = await client.get(f"/runs/{run}?after=0")
    assert "&lt;39&gt;" in end.text
    assert "&lt;0&gt;" in start.text
    for answer in (end, start):
        assert len(answer.content) < 5 * LOG_CHARS
    assert f"/runs/{run}?after=4" in Seen(start.text).links
    assert "&lt;3&gt;" in start.text


async def test_a_huge_value_is_cut_with_a_word_on_how_much_is_missing(house: PageHouse) -> None:
    run = await house.ran("gone", RunStatus.SUCCESS, return_value=f'"{"x" * 200_000}"')
    seen = await get(house, f"/runs/{run}")
    assert "… 134,464 more characters" in seen.text


async def test_a_task_shows_what_it_is_what_is_wrong_and_its_runs(house: PageHouse) -> None:
    house.put(
        "team/report",
        READY,
        name="Report",
        description="Writes it",
        tags=["a", "b"],
        trigger={"chain": {"from": ["x", "y"], "on": "failure"}},
        params={"city": {"description": "Where", "enum": ["Rome", "Oslo"], "required": True}},
    )
    (entry,) = house.rooms.registry.entries()
    problem = Problem("/srv/tasks/team/report/task.yaml", 4, 2, "timeout", "is no time", "use 5m")
    bad = Condition(ConditionType.READY, False, "InvalidSpec", "is no time")
    house.put_entry(Entry(entry.id, SOURCE, entry.folder, entry.task, (bad,), (problem,)))
    run = await house.ran("team/report", RunStatus.SUCCESS)
    seen = await get(house, "/tasks/team/report")
    for text in (
        "Report broken Writes it",
        "What is wrong The last good version stays in force. task.yaml:4 timeout is no time use 5m",
        "Trigger after x , y on failure",
        "Tags a, b",
        "Run it dicode run team/report",
        "Ready no InvalidSpec is no time",
        "city string required Rome , Oslo Where",
        "Manifest in force name: Report",
    ):
        assert text in seen.text
    assert f"/runs/{run}" in seen.links


async def test_runs_are_listed_by_status_and_task_a_page_at_a_time(house: PageHouse) -> None:
    house.put("a", READY)
    house.put("b", READY)
    for _ in range(60):
        await house.ran("a", RunStatus.SUCCESS)
    failed = await house.ran("b", RunStatus.FAILURE, error=RunError("exit_code", "it broke"))
    first = await get(house, "/runs")
    assert f"/runs/{failed}" in first.links
    assert "it broke" in first.text
    (older,) = [link for link in first.links if "cursor=" in link]
    assert len([link for link in (await get(house, older)).links if "/runs/0" in link]) == 11
    only = await get(house, "/runs?status=failure&task=b")
    assert [link for link in only.links if "/runs/0" in link] == [f"/runs/{failed}"]
    assert "/runs?task=b&status=lost" in only.links


async def test_what_a_task_says_is_never_markup_and_never_hidden(house: PageHouse) -> None:
    condition = Condition(ConditionType.REFERENCES, False, HOSTILE, HOSTILE)
    house.put(
        "evil",
        READY,
        condition,
        name=HOSTILE.replace("\x07", ""),
        description=HOSTILE,
        tags=[HOSTILE],
        author=HOSTILE,
        params={"p": {"description": HOSTILE, "default": HOSTILE, "enum": [HOSTILE]}},
    )
    error = RunError(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, HOSTILE)
    output = Output("text", "text/plain", HOSTILE, name="<b>")
    run = await house.ran(
        "evil",
        RunStatus.FAILURE,
        error=error,
        reason=HOSTILE,
        return_value='{"<b>": "\\ud800<i>"}',
        output=output,
    )
    await house.wrote(run, [HOSTILE, "\x1b[31mred\x1b[0m"])
    house.put_entry(
        Entry(
            "<b>",
            "evil source",
            Path("/<b>"),
            None,
            (READY,),
            (Problem(HOSTILE, 1, 1, HOSTILE, HOSTILE, HOSTILE),),
        )
    )
    allowed = {"span", "code", "pre", "a", "p", "td", "th", "div", "time", "h1", "title"}
    searched = f"/?q={quote(HOSTILE)}"
    for path in ("/", searched, "/runs", f"/runs/{run}", "/tasks/evil", "/tasks/%3Cb%3E"):
        async with house.browser() as client:
            text = (await client.get(path)).text
        seen = Seen(text)
        assert not {"script", "style", "img", "i", "iframe"} & {name for name, _ in seen.elements}
        for _, attributes in seen.elements:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert allowed & {name for name, _ in seen.elements}
        assert not {"\u202e", "\u200b", "\x07", "\x1b", "\ud800"} & set(text)
    shown = await get(house, f"/runs/{run}")
    assert '<script>alert(1)</script>"\' onclick="x" & \\u202e gnp.exe \\u200b \\x07' in shown.text
    assert "2 00:00:00.001 info red" in shown.text


async def test_each_page_forbids_scripts_frames_and_caching(house: PageHouse) -> None:
    house.put("job", READY)
    run = await house.ran("job", RunStatus.SUCCESS)
    async with house.browser() as client:
        for path in ("/", "/runs", f"/runs/{run}", "/tasks/job", "/tasks/none"):
            headers = (await client.get(path)).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; style-src 'self';")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"


async def test_a_page_needs_nothing_but_its_stylesheet_and_icon_from_here(
    house: PageHouse,
) -> None:
    seen = await get(house, "/")
    wanted = [a["href"] or "" for a in seen.all("link")]
    assert len(wanted) == 2
    async with house.browser() as client:
        for path, kind in zip(wanted, ("text/css", "image/svg+xml"), strict=True):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
            assert "http:" not in answer.text.replace("http://www.w3.org/2000/svg", "")
            assert "https:" not in answer.text
    assert all(link.startswith(("/", "#")) for link in seen.links)


async def test_every_table_has_a_caption_and_headers_for_columns_and_rows(
    house: PageHouse,
) -> None:
    house.put("job", READY, params={"a": "1"})
    run = await house.ran("job", RunStatus.SUCCESS)
    await house.wrote(run, ["line"])
    for path in ("/", "/runs", f"/runs/{run}", "/tasks/job"):
        seen = await get(house, path)
        tables = len(seen.all("table"))
        assert tables == len(seen.all("caption")) > 0
        scopes = {th["scope"] for th in seen.all("th")}
        assert scopes == {"col", "row"}
        assert len(seen.all("h1")) == 1
        assert [a["lang"] for a in seen.all("html")] == ["en"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tasks/none", 404),
        ("/runs/none", 404),
        ("/nothing", 404),
        ("/?status=lost", 400),
        ("/?cursor=%00", 400),
        ("/runs?status=nice", 400),
        ("/runs?task=none", 404),
    ],
)
async def test_what_is_not_there_is_a_page_for_browsers_and_a_problem_for_programs(
    house: PageHouse, path: str, status: int
) -> None:
    async with house.browser() as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["vary"]) == (status, "Accept")
        seen = Seen(answer.text)
        assert seen.all("main")
        for accept in ("*/*", "application/json, text/html"):
            problem = await client.get(path, headers={"accept": accept})
            assert problem.status_code == status
            assert problem.headers["content-type"] == MEDIA_TYPE
            assert problem.json()["status"] == status
        posted = await client.post("/runs")
        assert posted.status_code == 405
        assert posted.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize("after", ["-1", "x", "1e3", "٣", "9" * 30, ""])
async def test_a_bad_place_in_a_log_is_refused_with_a_hint(house: PageHouse, after: str) -> None:
    run = await house.ran("job", RunStatus.SUCCESS)
    async with house.browser() as client:
        answer = await client.get(f"/runs/{run}", params={"after": after})
    assert answer.status_code == 400
    assert "Use 0 for the start of the log" in Seen(answer.text).text


@pytest.mark.parametrize("path", ["/", "/runs", "/tasks/job", "/style.css", "/icon.svg"])
async def test_other_users_other_names_and_any_key_are_refused(house: PageHouse, path: str) -> None:
    house.put("job", READY, description="unseen")
    async with house.browser(find_owner=owned_by(ME + 1)) as client:
        answer = await client.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "unseen" not in answer.text
    async with house.browser() as client:
        assert (await client.get(path, headers={"host": "evil.example"})).status_code == 403
        assert (await client.get(path, headers={"origin": "http://e.example"})).status_code == 403
        assert (await client.get(path, headers={"authorization": "Bearer x"})).status_code == 401


async def test_without_a_principal_a_handler_shows_nothing(house: PageHouse) -> None:
    endpoint = next(r for r in house.pages.routes() if getattr(r, "path", "") == "/")
    request = Request({"type": "http", "method": "GET", "headers": [], "query_string": b""})
    with pytest.raises(DicodeError) as raised:
        await endpoint.endpoint(request)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    assert raised.value.code is Code.UNAUTHENTICATED


async def test_head_answers_as_get_does_without_a_body(house: PageHouse) -> None:
    house.put("job", READY)
    async with (
        HttpServer(house.app(), port=0).listening() as where,
        httpx.AsyncClient(base_url=where.url, timeout=DEADLINE_S, trust_env=False) as client,
    ):
        for path in ("/", "/tasks/job", "/runs", "/style.css"):
            got, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            for name in ("content-type", "content-length"):
                assert head.headers[name] == got.headers[name]
        missing = await client.head("/tasks/none", headers={"accept": "text/html"})
        assert (missing.status_code, missing.content) == (404, b"")


async def test_a_crash_of_ours_is_a_page_that_shows_nothing_of_it(
    house: PageHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*args: object, **kwargs: object) -> None:
        raise RuntimeError("s3cr3t")

    monkeypatch.setattr(house.rooms.store, "list_runs", crash)
    async with (
        HttpServer(house.app(), port=0).listening() as where,
        httpx.AsyncClient(base_url=where.url, timeout=DEADLINE_S, trust_env=False) as client,
    ):
        answer = await client.get("/", headers={"accept": "text/html"})
    assert answer.status_code == 500
    assert "The server failed on this request." in Seen(answer.text).text
    assert "s3cr3t" not in answer.text
