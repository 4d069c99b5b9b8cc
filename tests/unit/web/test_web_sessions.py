"""Sessions over the app: the cookie, where it counts, and the forms."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pagehouse import PageHouse

from dicode_mcp.service.passphrases import Hash
from dicode_mcp.service.principal import local_principal
from dicode_mcp.testing.callers import owned_by
from dicode_mcp.web.bearers import Bearers
from dicode_mcp.web.hook_frame import PageKeys, session_in
from dicode_mcp.web.login_pages import LoginPages
from dicode_mcp.web.sessions import wanted_page

RIGHT = "correct horse battery"
SAME = {"sec-fetch-site": "same-origin", "origin": "http://localhost:8080"}


def _fast(given: bytes, form: Hash) -> bytes:
    return hashlib.sha256(form.salt + given).digest()


class Site:
    """The pages with sessions, and a browser of somebody the kernel does not vouch for."""

    def __init__(self, pages: PageHouse, client: httpx.AsyncClient) -> None:
        self.pages = pages
        self.client = client

    async def token(self, path: str = "/login") -> str:
        text = (await self.client.get(path)).text
        found = re.search(r'name="token" value="([0-9a-f]+)"', text)
        assert found, text
        return found[1]

    async def login(
        self, given: str = RIGHT, *, token: str | None = None, to: str = "/", **more: Any
    ) -> httpx.Response:
        data = {"passphrase": given, "token": token or await self.token(), "next": to}
        return await self.client.post("/login", data=data, headers={**SAME, **more})


@asynccontextmanager
async def served(pages: PageHouse, scheme: str = "http", **more: Any) -> AsyncGenerator[Site]:
    sessions = pages.services.sessions
    pages.extra_routes = LoginPages(sessions).routes()
    bearers = Bearers(pages.services.keys, pages.audit, pages.rooms.clock)
    settings: dict[str, Any] = {
        "sessions": sessions,
        "bearers": bearers,
        "find_owner": owned_by(None),
        **more,
    }
    async with pages.browser(**settings) as client:
        client.base_url = httpx.URL(f"{scheme}://localhost:8080")
        yield Site(pages, client)


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Site]:
    monkeypatch.setattr("dicode_mcp.service.passphrases._derive", _fast)
    pages = PageHouse()
    await pages.services.sessions.set_passphrase(local_principal("cli"), RIGHT)
    async with served(pages) as made:
        yield made


async def test_a_browser_without_a_session_is_shown_where_to_log_in(site: Site) -> None:
    answer = await site.client.get("/runs?status=failure")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fruns%3Fstatus%3Dfailure"
    page = await site.client.get(answer.headers["location"])
    assert page.status_code == 200
    assert "<script" not in page.text
    assert 'type="password"' in page.text
    assert (await site.client.get("/style.css")).status_code == 200
    program = await site.client.get("/runs", headers={"accept": "application/json"})
    assert program.status_code == 401


async def test_the_right_passphrase_opens_the_pages_and_logout_closes_them(site: Site) -> None:
    answer = await site.login(to="/runs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
    assert (await site.client.get("/runs")).status_code == 200
    out = await site.client.post("/logout", data={"token": await site.token()}, headers=SAME)
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert (await site.client.get("/runs")).status_code == 303


@pytest.mark.parametrize(("scheme", "name"), [("http", "dicode"), ("https", "__Host-dicode")])
async def test_the_cookie_is_strict_and_hidden_and_secure_under_tls(
    site: Site, scheme: str, name: str
) -> None:
    async with served(site.pages, scheme) as other:
        answer = await other.login(origin=f"{scheme}://localhost:8080")
        (cookie,) = (c for c in answer.headers.get_list("set-cookie") if c.startswith(f"{name}="))
        low = cookie.lower()
        assert "httponly" in low
        assert "samesite=strict" in low
        assert "path=/" in low
        assert "domain" not in low
        assert ("secure" in low) is (scheme == "https")
        assert (await other.client.get("/runs")).status_code == 200


async def test_a_plain_cookie_does_not_count_under_tls(site: Site) -> None:
    await site.login()
    value = site.client.cookies["dicode"]
    async with served(site.pages, "https") as other:
        answer = await other.client.get("/runs", headers={"cookie": f"dicode={value}"})
        assert answer.status_code == 303
        good = await other.client.get("/runs", headers={"cookie": f"__Host-dicode={value}"})
        assert good.status_code == 200


async def test_two_cookies_of_the_name_are_none(site: Site) -> None:
    await site.login()
    value = site.client.cookies["dicode"]
    answer = await site.client.get("/runs", headers={"cookie": f"dicode=x; dicode={value}"})
    assert answer.status_code == 303


async def test_logging_in_gives_a_new_cookie_and_ends_the_old_one(site: Site) -> None:
    await site.client.get("/login", headers={"cookie": "dicode=chosen-by-somebody"})
    token = await site.token()
    await site.login(token=token)
    first = site.client.cookies["dicode"]
    form = await site.client.get("/login", headers={"cookie": "dicode-login=n"})
    again = re.search(r'name="token" value="([0-9a-f]+)"', form.text)
    assert again
    answer = await site.client.post(
        "/login",
        data={"passphrase": RIGHT, "token": again[1]},
        headers={**SAME, "cookie": f"dicode-login=n; dicode={first}"},
    )
    assert answer.status_code == 303
    assert site.client.cookies["dicode"] != first
    assert (
        await site.client.get("/runs", headers={"cookie": f"dicode={first}"})
    ).status_code == 303


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/api/tasks", "/metrics", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_session_is_good_for_pages_alone(site: Site, path: str, method: str) -> None:
    await site.login()
    answer = await site.client.request(method, path, headers=SAME)
    assert answer.status_code == 401


@pytest.mark.parametrize("site_of_page", ["cross-site", "same-site"])
async def test_another_sites_page_cannot_use_it(site: Site, site_of_page: str) -> None:
    await site.login()
    token = await site.token()
    headers = {"sec-fetch-site": site_of_page, "sec-fetch-mode": "navigate"}
    headers["sec-fetch-dest"] = "document"
    assert (await site.client.get("/runs", headers=headers)).status_code == 303
    out = await site.client.post("/logout", data={"token": token}, headers=headers)
    assert out.status_code == 403
    foreign = {"origin": "https://evil.example"}
    assert (
        await site.client.post("/logout", data={"token": token}, headers=foreign)
    ).status_code == 403
    assert (await site.client.get("/runs")).status_code == 200


async def test_a_form_without_its_token_does_nothing(site: Site) -> None:
    await site.token()
    assert (await site.login(token="0" * 64)).status_code == 403
    site.client.cookies.clear()
    token = await site.token()
    site.client.cookies.clear()
    assert (await site.login(token=token)).status_code == 403
    assert "dicode" not in site.client.cookies
    await site.login()
    out = await site.client.post("/logout", data={"token": "0" * 64}, headers=SAME)
    assert out.status_code == 403
    assert (await site.client.get("/runs")).status_code == 200


async def test_a_post_that_does_not_say_where_it_comes_from_has_no_session(site: Site) -> None:
    await site.login()
    value = site.client.cookies["dicode"]
    await site.client.post("/logout", data={"token": await site.token()})
    assert (
        await site.client.get("/runs", headers={"cookie": f"dicode={value}"})
    ).status_code == 200


async def test_wrong_ones_look_alike_and_are_slowed_down(site: Site) -> None:
    token = await site.token()
    texts = set[str]()
    for given in ("wrong", "", "x" * 2000, "\0"):
        answer = await site.login(given, token=token)
        assert answer.status_code == 403
        texts.add(answer.text)
        assert "x" * 50 not in answer.text
    assert len(texts) == 1
    await site.login("wrong", token=token)
    limited = await site.login(RIGHT, token=token)
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) >= 1


async def test_a_long_or_odd_body_is_refused(site: Site) -> None:
    too_long = await site.client.post("/login", data={"passphrase": "x" * 20_000}, headers=SAME)
    assert too_long.status_code == 413
    odd = await site.client.post("/login", json={"passphrase": RIGHT}, headers=SAME)
    assert odd.status_code == 400


async def test_over_an_unencrypted_connection_of_another_machine_nothing_is_asked(
    site: Site,
) -> None:
    async with served(site.pages, allowed_hosts=("box.example",)) as other:
        other.client.base_url = httpx.URL("http://box.example")
        page = await other.client.get("/login")
        assert 'type="password"' not in page.text
        assert "https" in page.text
        answer = await other.client.post(
            "/login", data={"passphrase": RIGHT}, headers={"sec-fetch-site": "same-origin"}
        )
        assert answer.status_code == 403
        assert "dicode" not in other.client.cookies


@pytest.mark.parametrize(
    ("given", "goes_to"),
    [
        ("/runs?x=1", "/runs?x=1"),
        ("/tasks/infra%2Fa", "/tasks/infra%2Fa"),
        ("/hooks/a?b=//c", "/hooks/a?b=//c"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/runs/\\evil.example", "/"),
        ("/runs/%5cevil", "/"),
        ("/logout", "/"),
        ("/mcp", "/"),
        ("javascript:alert(1)", "/"),
        ("/runs\r\nset-cookie: a=b", "/"),
        ("/runs/" + "x" * 600, "/"),
        (None, "/"),
    ],
)
def test_after_a_login_a_browser_goes_to_pages_of_ours_alone(
    given: str | None, goes_to: str
) -> None:
    assert wanted_page(given) == goes_to


def test_the_key_of_a_page_is_of_its_task_its_path_and_its_session() -> None:
    keys = PageKeys(b"x" * 32)
    bound, free = keys.of("a", "/hooks/a", "s1"), keys.of("a", "/hooks/a")
    assert (session_in(bound), session_in(free)) == ("s1", None)
    for key in (bound, free):
        assert keys.fits("a", "/hooks/a", key)
        assert not keys.fits("b", "/hooks/a", key)
        assert not keys.fits("a", "/hooks/b", key)
    assert not keys.fits("a", "/hooks/a", bound.replace("s1", "s2"))
    assert not keys.fits("a", "/hooks/a", f"{free}.s1")
    assert not keys.fits("a", "/hooks/a", bound.partition(".")[0])
