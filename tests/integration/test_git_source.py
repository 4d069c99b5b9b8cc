"""A whole server on a git source: pushes, rollbacks, and a remote that is gone."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from liveserver import Live, Serve

from dicode_mcp.config import SourceAuth, SourceConfig
from dicode_mcp.testing.gitserver import GitServer, serving

MANIFEST = "name: Hello\nruntime: python\ntrigger: {manual: true}\n"
SECRET = "push-s3cret-canary"
DEADLINE_S = 30


@pytest.fixture
def git(tmp_path: Path) -> Generator[GitServer]:
    with serving(tmp_path / "served") as server:
        yield server


def files(text: str) -> dict[str, str]:
    return {
        "tasks/hello/task.yaml": MANIFEST,
        "tasks/hello/task.py": f"def main():\n    return {text!r}\n",
    }


def source(git: GitServer, **more: Any) -> SourceConfig:
    given: dict[str, Any] = {"name": "src", "poll_interval": 3600, "path": "tasks", **more}
    return SourceConfig(type="git", url=git.url_of(), **given)


async def shown(live: Live) -> dict[str, Any]:
    sources = (await live.call("list_sources"))["sources"]
    return next(found for found in sources if found["name"] == "src")


async def returned(live: Live) -> Any:
    run = await live.run("src/hello")
    assert run["status"] == "success", run
    return run["return_value"]


def reasons(view: Mapping[str, Any]) -> dict[str, str]:
    return {c["type"]: c["reason"] for c in view["conditions"] if c["status"] == "False"}


async def test_tasks_of_a_repository_run_and_each_run_says_which_commit_it_was(
    serve: Serve, git: GitServer
) -> None:
    repository = git.repository()
    first = repository.commit(files("one"), message="Say one")
    async with serve(sources=[source(git)]) as live:
        run = await live.run("src/hello")
        assert (run["return_value"], run["revision"]) == ("one", first)
        view = await shown(live)
        assert view["revision"] == first
        assert view["commit"] == {
            "author": "Ada <ada@example.org>",
            "subject": "Say one",
            "time": "2023-11-14T22:13:21.000Z",
        }
        assert (view["branch"], view["url"]) == ("main", git.url_of())
        second = repository.commit(files("two"))
        await live.call("sync_source", source="src")
        run = await live.run("src/hello")
        assert (run["return_value"], run["revision"]) == ("two", second)


async def test_tags_of_a_source_are_on_each_of_its_tasks(serve: Serve, git: GitServer) -> None:
    git.repository().commit(files("one"))
    async with serve(sources=[source(git, tags=("team-a",))]) as live:
        (task,) = (await live.call("list_tasks", tag="team-a"))["tasks"]
        assert (task["id"], task["tags"]) == ("src/hello", ["team-a"])


async def test_a_bad_commit_leaves_the_good_version_in_force_and_says_so(
    serve: Serve, git: GitServer
) -> None:
    repository = git.repository()
    repository.commit(files("good"))
    async with serve(sources=[source(git)]) as live:
        repository.commit({"tasks/hello/task.yaml": "name: [\n"})
        await live.call("sync_source", source="src")
        assert await returned(live) == "good"
        task = await live.call("get_task", id="src/hello")
        assert "Ready" in reasons(task)
        repository.commit(files("mended"))
        await live.call("sync_source", source="src")
        assert await returned(live) == "mended"


async def test_a_source_is_rolled_back_stays_there_over_a_restart_and_follows_again(
    serve: Serve, git: GitServer
) -> None:
    repository = git.repository()
    old = repository.commit(files("old"))
    new = repository.commit(files("new"))
    async with serve(sources=[source(git)]) as live:
        assert await returned(live) == "new"
        view = await live.call("sync_source", source="src", commit=old)
        assert (view["revision"], view["pinned"]) == (old, old)
        assert await returned(live) == "old"
        newest = repository.commit(files("newest"))
        await live.call("sync_source", source="src")
        assert await returned(live) == "old"
    async with serve(sources=[source(git)]) as live:
        assert await returned(live) == "old"
        assert (await shown(live))["pinned"] == old
        view = await live.call("sync_source", source="src", unpin=True)
        assert (view["revision"], view.get("pinned")) == (newest, None)
        assert await returned(live) == "newest"
    assert new != newest


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"commit": "1" * 40}, "not_found"),
        ({"commit": "main"}, "invalid_argument"),
        ({"commit": "1" * 40, "unpin": True}, "invalid_argument"),
    ],
)
async def test_a_commit_that_cannot_be_had_changes_nothing(
    arguments: dict[str, Any], code: str, serve: Serve, git: GitServer
) -> None:
    head = git.repository().commit(files("here"))
    async with serve(sources=[source(git)]) as live:
        answer = await live.call("sync_source", source="src", **arguments)
        assert answer["error"]["code"] == code
        view = await shown(live)
        assert (view["revision"], view.get("pinned")) == (head, None)
        assert await returned(live) == "here"


async def test_every_task_of_the_last_good_revision_runs_after_a_restart_without_the_remote(
    serve: Serve, git: GitServer
) -> None:
    git.repository().commit(files("still here"))
    async with serve(sources=[source(git, poll_interval=1)]) as live:
        assert await returned(live) == "still here"
    git.fault = lambda exchange: exchange.drop()
    async with serve(sources=[source(git, poll_interval=1)]) as live:
        assert await returned(live) == "still here"
        async with asyncio.timeout(DEADLINE_S):
            while reasons(await shown(live)).get("Synced") != "Unreachable":
                pass
        git.fault = None
        await live.call("sync_source", source="src")
        assert reasons(await shown(live)) == {}


async def test_a_source_that_was_never_fetched_is_listed_with_its_reason(
    serve: Serve, git: GitServer
) -> None:
    git.token = "right"
    auth = SourceAuth(token_env="GIT_TOKEN")
    environ = {**os.environ, "GIT_TOKEN": "wrong-canary"}
    async with serve(sources=[source(git, auth=auth)], environ=environ) as live:
        view = await shown(live)
        synced = [c for c in view["conditions"] if c["type"] == "Synced"]
        assert [c["reason"] for c in synced] == ["AuthFailed"]
        assert "wrong-canary" not in str(view)
    git.repository().commit(files("in"))
    environ["GIT_TOKEN"] = "right"
    async with serve(sources=[source(git, auth=auth)], environ=environ) as live:
        assert await returned(live) == "in"


# Push webhooks


def sign(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


BODY = b'{"ref": "refs/heads/main"}'
PROOFS = {
    "GitHub": {"X-Hub-Signature-256": "sha256=" + sign(BODY)},
    "Gitea": {"X-Gitea-Signature": sign(BODY)},
    "Gitea as GitHub too": {
        "X-Gitea-Signature": sign(BODY),
        "X-Hub-Signature-256": "sha256=" + sign(BODY),
    },
    "GitLab": {"X-Gitlab-Token": SECRET},
}
REFUSED: dict[str, tuple[dict[str, str], int]] = {
    "nothing": ({}, 401),
    "an old kind": ({"X-Hub-Signature": "sha1=" + "0" * 40}, 401),
    "another secret": ({"X-Hub-Signature-256": "sha256=" + sign(BODY, "other")}, 403),
    "no kind": ({"X-Hub-Signature-256": sign(BODY)}, 403),
    "upper case": ({"X-Hub-Signature-256": "sha256=" + sign(BODY).upper()}, 403),
    "another body": ({"X-Hub-Signature-256": "sha256=" + sign(BODY + b" ")}, 403),
    "an empty one": ({"X-Gitea-Signature": ""}, 403),
    "a wrong token": ({"X-Gitlab-Token": SECRET + "x"}, 403),
    "a digest as token": ({"X-Gitlab-Token": sign(BODY)}, 403),
    "one of two wrong": ({"X-Gitea-Signature": sign(BODY), "X-Gitlab-Token": "x"}, 403),
    "odd bytes": ({"X-Gitlab-Token": "\xff\xfe"}, 403),
}


async def test_a_push_message_of_each_forge_is_answered_at_once_and_its_commit_is_live_soon(
    serve: Serve, git: GitServer
) -> None:
    repository = git.repository()
    repository.commit(files("start"))
    environ = {**os.environ, "PUSH": SECRET}
    sources = [source(git, push_secret_env="PUSH")]
    async with serve(sources=sources, environ=environ, http=True) as live:
        url = f"{live.server.url}/hooks/git/src"
        async with httpx.AsyncClient(trust_env=False) as client:
            for name, headers in PROOFS.items():
                commit = repository.commit(files(name))
                answer = await client.post(url, content=BODY, headers=headers)
                assert (answer.status_code, answer.json()) == (202, {"pulls": 1}), name
                async with asyncio.timeout(DEADLINE_S):
                    while (await shown(live))["revision"] != commit:
                        pass
                assert await returned(live) == name


async def test_a_push_message_without_the_right_proof_pulls_nothing(
    serve: Serve, git: GitServer
) -> None:
    git.repository().commit(files("start"))
    environ = {**os.environ, "PUSH": SECRET}
    sources = [source(git, push_secret_env="PUSH")]
    async with serve(sources=sources, environ=environ, http=True) as live:
        asked = len(git.seen)
        async with httpx.AsyncClient(trust_env=False) as client:
            for name, (headers, status) in REFUSED.items():
                raw = [(key.encode(), value.encode("latin-1")) for key, value in headers.items()]
                url = f"{live.server.url}/hooks/git/src"
                answer = await client.post(url, content=BODY, headers=raw)
                assert answer.status_code == status, name
                assert SECRET not in answer.text
            gone = await client.post(f"{live.server.url}/hooks/git/nope", content=BODY)
            assert gone.status_code == 404
            wrong = await client.get(f"{live.server.url}/hooks/git/src")
            assert wrong.status_code in (401, 405)
        assert len(git.seen) <= asked + 1  # The poll's own first look.


async def test_a_push_webhook_whose_secret_is_not_set_is_not_served_and_says_so(
    serve: Serve, git: GitServer
) -> None:
    git.repository().commit(files("start"))
    async with serve(sources=[source(git, push_secret_env="UNSET_PUSH")], http=True) as live:
        view = await shown(live)
        assert reasons(view) == {"PushWebhook": "SecretMissing"}
        async with httpx.AsyncClient(trust_env=False) as client:
            empty = hmac.new(b"", BODY, hashlib.sha256).hexdigest()
            answer = await client.post(
                f"{live.server.url}/hooks/git/src",
                content=BODY,
                headers={"X-Hub-Signature-256": f"sha256={empty}"},
            )
        assert answer.status_code == 404
