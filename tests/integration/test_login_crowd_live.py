"""Another user of this machine tries passphrases; the owner logs in as if nobody had."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from liveserver import Serve
from test_sessions_live import PASSPHRASE, call_as_cli, logged_in

from dicode_mcp.testing.others import as_somebody, python_of_others

TRIES = """
import http.cookiejar, json, re, sys, urllib.error, urllib.parse, urllib.request
url = sys.argv[1]
cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
form = opener.open(url + "/login").read().decode()
token = re.search(r'name="token" value="([0-9a-f]+)"', form)[1]
told = []
for n in range(8):
    data = urllib.parse.urlencode({"passphrase": f"wrong {n}", "token": token, "next": "/"})
    request = urllib.request.Request(url + "/login", data.encode(), {"Origin": url})
    try:
        told.append(opener.open(request).status)
    except urllib.error.HTTPError as error:
        told.append(error.code)
print(json.dumps(told))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to be somebody else")
async def test_another_local_user_does_not_keep_the_owner_from_his_login(
    serve: Serve, tmp_path: Path
) -> None:
    python = await asyncio.to_thread(python_of_others)
    if python is None:
        pytest.skip("there is no interpreter that another user may start")
    async with serve(http=True, environ=dict(os.environ)) as live:
        await asyncio.to_thread(call_as_cli, live, "passphrase_set", passphrase=PASSPHRASE)
        url = live.server.url or ""
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as early:
            assert (await logged_in(early, "/")).status_code == 303
            folder = tmp_path / "somebody"
            folder.mkdir()
            options: Any = {**as_somebody(folder), "cwd": "/"}
            trying = await asyncio.create_subprocess_exec(
                python, "-c", TRIES, url, stdout=asyncio.subprocess.PIPE, **options
            )
            told = json.loads((await trying.communicate())[0])
            assert told[:5] == [403] * 5
            assert 429 in told
            # A session that is there goes on, and a new one begins at once.
            assert (await early.get("/", headers={"accept": "text/html"})).status_code == 200
            async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
                assert (await logged_in(client, "/")).status_code == 303
        entries = (await live.call("get_audit", action="login", limit=50))["entries"]
        actors = {entry["actor"] for entry in entries}
        assert len(actors) == 2
        assert any(actor.endswith("user 54321") for actor in actors)
