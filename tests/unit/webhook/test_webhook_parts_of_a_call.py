"""What a task is told of a request, what makes two deliveries one, whose a path is, how often."""

from __future__ import annotations

import pytest

from dicode_mcp.registry import Entry
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.trigger import RateLimit
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.rooms import SOURCE, Rooms, make_task
from dicode_mcp.testing.secrets import NoSecrets
from dicode_mcp.triggers.webhook.keys import HookKeys
from dicode_mcp.triggers.webhook.rate import MAX_BUCKETS, RateLimits
from dicode_mcp.triggers.webhook.request import Call, Delivery, delivery, shown
from dicode_mcp.triggers.webhook.table import HookTable, is_plain


def hook(task_id: str, path: str) -> Task:
    return make_task(task_id, trigger={"webhook": path})


# ── The request ──


def test_proofs_and_credentials_do_not_reach_the_task() -> None:
    secret_ones = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-hub-signature",
        "x-hub-signature-256",
        "stripe-signature",
        "webhook-signature",
        "svix-signature",
        "x-gitea-signature",
        "x-slack-signature",
        "x-dicode-page",
    ]
    headers = [(name, "s3cret") for name in secret_ones]
    headers += [("x-github-event", "push"), ("accept", "a"), ("accept", "b")]
    headers += [("x-github-delivery", "d-1")]
    seen = shown(Call("POST", "/hooks/x/y", "a=1", headers, "192.0.2.7"), {"a": "1"})
    assert seen == {
        "method": "POST",
        "path": "/hooks/x/y",
        "query": {"a": "1"},
        "headers": {"x-github-event": "push", "accept": "a, b", "x-github-delivery": "d-1"},
        "delivery_id": "d-1",
        "client": "192.0.2.7",
    }


@pytest.mark.parametrize(
    ("headers", "kind", "name"),
    [
        ([("idempotency-key", "k"), ("x-github-delivery", "d")], "key", "k"),
        ([("webhook-id", "m"), ("x-github-delivery", "d")], "standard", "m"),
        ([("x-gitea-delivery", "g"), ("x-github-delivery", "g")], "github", "g"),
        ([("x-gitlab-event-uuid", "u")], "gitlab", "u"),
        ([("idempotency-key", " "), ("x-gitea-delivery", "g")], "gitea", "g"),
    ],
)
def test_a_delivery_is_known_by_its_senders_name_for_it(
    headers: list[tuple[str, str]], kind: str, name: str
) -> None:
    assert delivery(headers) == Delivery(kind, name)


def test_a_message_without_a_name_has_none() -> None:
    assert delivery([("x-github-event", "push")]) is None


def test_keys_of_different_kinds_never_meet() -> None:
    keys = {Delivery(kind, "1").key(b"") for kind in ("key", "standard", "github", "gitea")}
    assert len(keys) == 4
    assert all(key.startswith("hook:") for key in keys)


def test_gitlab_events_that_follow_from_each_other_are_told_apart() -> None:
    named = Delivery("gitlab", "u")
    assert named.key(b"one") == named.key(b"one")
    assert named.key(b"one") != named.key(b"two")


def test_a_long_name_is_kept_as_a_hash() -> None:
    key = Delivery("github", "x" * 5000).key(b"")
    assert len(key) < 200
    assert key != Delivery("github", "x" * 5001).key(b"")


# ── The table ──


def test_the_exact_path_goes_before_the_longest_one_above() -> None:
    rooms = Rooms()
    rooms.put(hook("a", "/hooks/a"), hook("b", "/hooks/a/b"), hook("c", "/hooks/a/b/c"))
    table = HookTable(rooms.registry, HookKeys(NoSecrets()))
    wanted = {
        "/hooks/a": ("a", ""),
        "/hooks/a/": ("a", "/"),
        "/hooks/a/x": ("a", "/x"),
        "/hooks/a/b": ("b", ""),
        "/hooks/a/b/": ("b", "/"),
        "/hooks/a/b/x/y": ("b", "/x/y"),
        "/hooks/a/b/c": ("c", ""),
        "/hooks/ab": None,
        "/hooks/": None,
        "/hooks": None,
        "/": None,
    }
    for path, expected in wanted.items():
        found = table.find(path)
        assert (found and (found.task.id, found.rest)) == expected, path


def test_the_table_follows_the_registry() -> None:
    rooms = Rooms()
    table = HookTable(rooms.registry, HookKeys(NoSecrets()))
    assert table.find("/hooks/a") is None
    rooms.put(make_task("a", "1", trigger={"webhook": "/hooks/a"}))
    first = table.find("/hooks/a")
    rooms.put(make_task("a", "2", trigger={"webhook": "/hooks/a"}))
    second = table.find("/hooks/a")
    assert first is not None
    assert second is not None
    assert (first.task.digest, second.task.digest) == ("1" * 64, "2" * 64)
    rooms.put(make_task("a", "3", trigger={"webhook": "/hooks/moved"}))
    assert table.find("/hooks/a") is None
    assert table.find("/hooks/moved") is not None
    rooms.remove("a")
    assert table.find("/hooks/moved") is None


def test_of_two_tasks_on_a_path_the_first_owner_serves_until_it_goes() -> None:
    rooms = Rooms()
    table = HookTable(rooms.registry, HookKeys(NoSecrets()))
    rooms.put(make_task("b", trigger={"webhook": "/hooks/x"}))
    rooms.put(make_task("a", trigger={"webhook": "/hooks/x"}))
    found = table.find("/hooks/x")
    assert found is not None
    assert found.task.id == "b"
    rooms.remove("b")
    found = table.find("/hooks/x")
    assert found is not None
    assert found.task.id == "a"


def test_a_version_that_waits_for_approval_is_not_served_and_the_one_before_is() -> None:
    rooms = Rooms()
    table = HookTable(rooms.registry, HookKeys(NoSecrets()))
    old = make_task("a", "1", trigger={"webhook": "/hooks/a"})
    new = make_task("a", "2", trigger={"webhook": "/hooks/a"})
    rooms.registry.apply(SOURCE, put=[Entry("a", SOURCE, new.folder, None, waiting=new)])
    assert table.find("/hooks/a") is None
    rooms.registry.apply(SOURCE, put=[Entry("a", SOURCE, old.folder, old, waiting=new)])
    found = table.find("/hooks/a")
    assert found is not None
    assert found.task is old


@pytest.mark.parametrize("secret", ["${UNSET}", "pre-${UNSET}", {"secret": "github"}])
def test_a_webhook_whose_secret_is_not_there_is_known_and_not_served(secret: object) -> None:
    rooms = Rooms()
    rooms.put(make_task("a", trigger={"webhook": "/hooks/a", "webhook_secret": secret}))
    found = HookTable(rooms.registry, HookKeys(NoSecrets())).find("/hooks/a")
    assert found is not None
    assert not found.served


@pytest.mark.parametrize(
    "path",
    [
        "/hooks/a/../b",
        "/hooks/a/./b",
        "/hooks/..",
        "/hooks/../etc/passwd",
        "/hooks//a",
        "/hooks/a//b",
        "//hooks/a",
        "/hooks/a\\b",
        "/hooks/a/\0",
        "/hooks/a\n",
        "/hooks/a/%2e%2e",
        "/hooks/a/\ufffd",
        "/hooks/a/\u202e",
        "/hooks/" + "a/" * 2000,
        "/Hooks/a",
        "/api/tasks",
    ],
)
def test_odd_paths_belong_to_nobody(path: str) -> None:
    rooms = Rooms()
    rooms.put(make_task("a", trigger={"webhook": "/hooks/a"}))
    assert not is_plain(path)
    assert HookTable(rooms.registry, HookKeys(NoSecrets())).find(path) is None


# ── How often ──


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    clock = FakeClock()
    rates = RateLimits(clock)
    limit = RateLimit(limit=60, per=60.0, burst=3)
    assert [rates.take("a", limit, None) for _ in range(4)] == [None, None, None, 1]
    clock.advance(0.5)
    assert rates.take("a", limit, None) == 1
    clock.advance(0.5)
    assert rates.take("a", limit, None) is None
    assert rates.take("b", limit, None) is None
    clock.advance(3600)
    assert [rates.take("a", limit, None) for _ in range(4)].count(None) == 3


def test_who_waits_is_told_for_how_long() -> None:
    rates = RateLimits(FakeClock())
    limit = RateLimit(limit=1, per=3600.0)
    assert rates.take("a", limit, None) is None
    assert rates.take("a", limit, None) == 3600


def test_senders_are_counted_apart_where_it_is_so_declared() -> None:
    rates = RateLimits(FakeClock())
    limit = RateLimit(limit=1, per=60.0, by="client")
    assert rates.take("a", limit, "192.0.2.1") is None
    assert rates.take("a", limit, "192.0.2.2") is None
    assert rates.take("a", limit, "192.0.2.1") == 60


def test_a_narrower_limit_holds_from_the_next_message_on() -> None:
    rates = RateLimits(FakeClock())
    rates.take("a", RateLimit(limit=100), None)
    narrow = RateLimit(limit=1)
    assert [rates.take("a", narrow, None) for _ in range(2)] == [None, 60]


def test_a_flood_of_senders_does_not_grow_the_server() -> None:
    rates = RateLimits(FakeClock())
    limit = RateLimit(limit=1, by="client")
    for number in range(MAX_BUCKETS + 100):
        rates.take("a", limit, str(number))
    assert len(rates._buckets) == MAX_BUCKETS  # pyright: ignore[reportPrivateUsage]
