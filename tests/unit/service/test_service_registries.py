"""Searching registries, and asking them for one name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from registryhouse import COMMUNITY, RegistryHouse, write_files

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.registry import Entry
from dicode_mcp.service.principal import local_principal
from dicode_mcp.service.registries import Registries
from dicode_mcp.service.shelves import PATIENCE_S, REFRESH_S, RETRY_S
from dicode_mcp.spec.taskset.resolution import Declared
from dicode_mcp.spec.taskset.world import Remote, Tree
from dicode_mcp.testing.waiting import running

URL = "https://git.example.org/registry"
ME = local_principal("mcp")
TASK = "name: {}\nruntime: python\ntrigger: {{manual: true}}\ndescription: {}\n"


@pytest.fixture
def house(tmp_path: Path) -> RegistryHouse:
    return RegistryHouse(tmp_path)


@pytest.fixture
def community(house: RegistryHouse) -> Registries:
    return house.open(house.folder({"taskset.yaml": COMMUNITY}))


async def paths(registries: Registries, query: str) -> list[str]:
    return [offer.path for offer in await registries.find(query)]


async def test_words_are_found_in_path_name_description_and_tags(community: Registries) -> None:
    assert await paths(community, "MONITORING") == [
        "monitoring/uptime-ping",
        "monitoring/ssl-expiry",
        "backup/photos",
    ]
    assert await paths(community, "photo") == ["backup/photos"]
    assert await paths(community, "tls") == ["monitoring/ssl-expiry"]
    assert await paths(community, "health slack") == ["monitoring/uptime-ping"]
    assert await paths(community, "health tls") == []
    assert await paths(community, "expiry") == ["monitoring/ssl-expiry"]


async def test_the_best_match_comes_first_and_equals_stay_in_order(house: RegistryHouse) -> None:
    entries = {
        "z-in-description": "{description: all about disk}",
        "my-disk-2": "{name: other}",
        "my-disk-1": "{name: other}",
        "disk-usage": "{}",
        "disk": "{}",
        "a-named": "{name: Watches disk space}",
    }
    text = "kind: TaskSet\nspec:\n  entries:\n" + "".join(
        f"    {key}: {{ref: {{url: https://example.org/{key}}}, overrides: {said}}}\n"
        for key, said in entries.items()
    )
    registries = house.open(house.folder({"taskset.yaml": text}))
    assert await paths(registries, "disk") == [
        "disk",
        "disk-usage",
        "my-disk-2",
        "my-disk-1",
        "a-named",
        "z-in-description",
    ]


async def test_a_result_says_what_to_install_and_where_it_is(community: Registries) -> None:
    found = await community.search(ME, "uptime")
    assert found == {
        "tasks": [
            {
                "path": "monitoring/uptime-ping",
                "name": "uptime-ping",
                "description": "HTTP health checks with Slack alerting",
                "repo": "github.com/dicode-ayo/task-uptime",
                "tags": ["http", "slack"],
                "registry": "registry",
                "installed": False,
                "url": "https://github.com/dicode-ayo/task-uptime",
            }
        ],
        "count": 1,
        "install": "dicode task install <name>",
        "problems": [],
    }


async def test_a_limit_cuts_what_is_shown_and_not_what_is_counted(community: Registries) -> None:
    found = await community.search(ME, "monitoring", limit=1)
    assert [task["path"] for task in found["tasks"]] == ["monitoring/uptime-ping"]
    assert found["count"] == 3


async def test_the_repository_s_own_tasks_sets_and_folders_are_offered(
    house: RegistryHouse,
) -> None:
    place = house.repository(
        URL,
        {
            "taskset.yaml": """\
                kind: TaskSet
                spec:
                  entries:
                    digest:
                      ref: {path: ./tasks/digest}
                      overrides: {tags: [mail]}
                    inner: {ref: {path: ./inner/taskset.yaml}}
                    many: {ref: {path: ./many}}
                    off: {ref: {path: ./tasks/digest}, enabled: false}
                    here:
                      inline:
                        name: Here
                        runtime: python
                        trigger: {manual: true}
                        description: written in the set
                        script: |
                          result = 1
                """,
            "tasks/digest/task.yaml": TASK.format("Digest", "the daily digest"),
            "inner/taskset.yaml": "kind: TaskSet\nspec: {entries: {x: {ref: {path: ./x}}}}\n",
            "inner/x/task.yaml": TASK.format("X", "inside"),
            "many/a/task.yaml": TASK.format("A", "one of many"),
            "many/deep/b/task.yaml": TASK.format("B", "one of many"),
        },
    )
    registries = house.open(place)
    async with running(registries.run()):
        digest = await registries.get("digest")
        assert (digest.name, digest.description, digest.tags, digest.own) == (
            "Digest",
            "the daily digest",
            ("mail",),
            True,
        )
        assert digest.repo == "git.example.org/registry"
        assert digest.ref
        assert digest.ref.model_dump(exclude_defaults=True) == {
            "url": URL,
            "path": "tasks/digest",
            "branch": "main",
        }
        inner = await registries.get("inner/x")
        assert inner.ref
        assert inner.ref.path == "inner/x"
        assert await paths(registries, "many") == ["many/a", "many/deep/b"]
        here = (await registries.search(ME, "here"))["tasks"]
        assert [(task["description"], task["installable"]) for task in here] == [
            ("written in the set", False)
        ]
        with pytest.raises(DicodeError) as caught:
            await registries.get("off")
        assert caught.value.code is Code.NOT_FOUND


async def test_names_are_a_path_or_its_only_end(house: RegistryHouse) -> None:
    text = "kind: TaskSet\nspec:\n  entries:\n" + "".join(
        f"    {key}: {{ref: {{url: https://example.org/{key}}}}}\n"
        for key in ("a/ping", "b/ping", "b/pong", "ping/c")
    )
    registries = house.open(
        house.folder({"taskset.yaml": text}, "one"),
        house.folder({"taskset.yaml": text.replace("example.org", "other.org")}, "two"),
    )
    only = house.open(house.folder({"taskset.yaml": text}, "only"))
    assert (await only.get("b/ping")).path == "b/ping"
    assert (await only.get("pong")).path == "b/pong"
    assert (await only.get("only:b/pong")).path == "b/pong"
    with pytest.raises(DicodeError) as caught:
        await only.get("ping")
    assert caught.value.code is Code.CONFLICT
    assert caught.value.data == {"candidates": ["a/ping", "b/ping"]}
    with pytest.raises(DicodeError) as caught:
        await only.get("pnog")
    assert caught.value.code is Code.NOT_FOUND
    assert caught.value.data["closest"][0] in ("b/pong", "a/ping")
    with pytest.raises(DicodeError) as caught:
        await registries.get("b/pong")
    assert caught.value.data == {"candidates": ["one:b/pong", "two:b/pong"]}
    assert (await registries.get("two:b/pong")).repo == "other.org/b/pong"


async def test_equal_offers_of_two_registries_are_one_name(house: RegistryHouse) -> None:
    one = house.folder({"taskset.yaml": COMMUNITY}, "one")
    two = house.folder({"taskset.yaml": COMMUNITY}, "two")
    assert (await house.open(one, two).get("uptime-ping")).registry == "one"


async def test_a_broken_entry_is_told_and_the_others_answer(house: RegistryHouse) -> None:
    broken = house.folder(
        {
            "taskset.yaml": """\
                kind: TaskSet
                spec:
                  entries:
                    good: {ref: {url: https://example.org/good}}
                    bad: {rev: {url: https://example.org/bad}}
                    gone: {ref: {path: ./gone}}
                    odd: {ref: {path: ./odd}}
                """,
            "odd/task.yaml": "name: [\n",
        },
        "broken",
    )
    worse = house.folder({"taskset.yaml": "kind: TaskSet\nspec: [\n"}, "worse")
    nowhere = house.folder({}, "nowhere")
    registries = house.open(broken, worse, nowhere)
    found = await registries.search(ME, "good")
    assert [task["path"] for task in found["tasks"]] == ["good"]
    told = list(dict.fromkeys(f"{p['file']}:{p['line']}" for p in found["problems"]))
    assert told == [
        "broken:taskset.yaml:5",
        "broken:taskset.yaml:6",
        "broken:odd/task.yaml:2",
        "worse:taskset.yaml:3",
        "nowhere:0",
    ]
    only = await registries.search(ME, "good", registry="worse")
    assert only["tasks"] == []
    with pytest.raises(DicodeError, match="registries here: broken, worse, nowhere"):
        await registries.search(ME, "good", registry="other")


async def test_without_a_registry_the_answer_says_how_to_add_one(house: RegistryHouse) -> None:
    registries = house.open()
    found = await registries.search(ME, "monitoring")
    assert (found["tasks"], found["count"]) == ([], 0)
    assert "dicode.yaml" in found["note"]
    assert "registries: [https://" in found["note"]
    with pytest.raises(DicodeError) as caught:
        await registries.get("monitoring/uptime-ping")
    assert "dicode.yaml" in (caught.value.hint or "")


async def test_a_query_without_a_word_is_refused(community: Registries) -> None:
    with pytest.raises(DicodeError) as caught:
        await community.search(ME, "   ")
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_remote_is_asked_once_in_a_while(house: RegistryHouse) -> None:
    registries = house.open(house.repository(URL, {"taskset.yaml": COMMUNITY}))
    async with running(registries.run()):
        for _ in range(3):
            assert len(await registries.find("monitoring")) == 3
        assert len(house.checkouts.asked) == 1
        changed = {"taskset.yaml": COMMUNITY.replace("monitoring/", "watching/")}
        house.repository(URL, changed, "2" * 40)
        assert len(await registries.find("monitoring")) == 3
        house.clock.advance(REFRESH_S)
        assert await paths(registries, "watching") == [
            "watching/uptime-ping",
            "watching/ssl-expiry",
        ]
        assert len(house.checkouts.asked) == 2


async def test_offline_the_last_good_version_answers_and_says_so(house: RegistryHouse) -> None:
    registries = house.open(house.repository(URL, {"taskset.yaml": COMMUNITY}))
    async with running(registries.run()):
        await registries.find("monitoring")
        house.checkouts.fail(URL, message="the remote does not answer")
        house.clock.advance(REFRESH_S)
        found = await registries.search(ME, "monitoring")
        assert found["count"] == 3
        (problem,) = found["problems"]
        assert "the remote does not answer" in problem["message"]
        assert "last good version" in problem["hint"]
        house.checkouts.mend(URL)
        house.clock.advance(RETRY_S)
        assert (await registries.search(ME, "monitoring"))["problems"] == []


async def test_what_was_never_fetched_is_a_problem_and_asked_again_soon(
    house: RegistryHouse,
) -> None:
    place = house.repository(URL, {"taskset.yaml": COMMUNITY})
    house.checkouts.fail(URL)
    registries = house.open(place, house.folder({"taskset.yaml": COMMUNITY}, "mine"))
    async with running(registries.run()):
        found = await registries.search(ME, "uptime")
        assert [task["registry"] for task in found["tasks"]] == ["mine"]
        assert "cannot be had" in found["problems"][0]["message"]
        house.checkouts.mend(URL)
        await registries.find("uptime")
        assert len(house.checkouts.asked) == 1
        house.clock.advance(RETRY_S)
        assert len(await registries.find("uptime")) == 2


async def test_a_slow_remote_does_not_hold_up_a_search(house: RegistryHouse) -> None:
    # nobody runs the fetches: as a remote that never answers
    place = house.repository(URL, {"taskset.yaml": COMMUNITY})
    registries = house.open(place, house.folder({"taskset.yaml": COMMUNITY}, "mine"))
    searching = asyncio.create_task(registries.search(ME, "uptime"))
    await house.clock.asleep()
    house.clock.advance(PATIENCE_S)
    found = await searching
    assert [task["registry"] for task in found["tasks"]] == ["mine"]
    assert "still being fetched" in found["problems"][0]["message"]


async def test_an_edit_of_a_local_registry_is_found_at_once(
    house: RegistryHouse, community: Registries
) -> None:
    assert await paths(community, "ssl") == ["monitoring/ssl-expiry"]
    text = COMMUNITY.replace("ssl-expiry", "tls-expiry").replace("SSL", "TLS").replace("-ssl-", "")
    write_files(house.root / "registry", {"taskset.yaml": text})
    assert await paths(community, "ssl") == []
    assert len(await community.find("tls")) == 1


async def test_what_is_installed_is_said_however_its_url_is_written(
    house: RegistryHouse, community: Registries
) -> None:
    ours = {
        "mine/ping": ("https://github.com/dicode-ayo/task-uptime.git", "."),
        "mine/photos": ("ssh://git@git.example.org/me/photos", "tasks/photos"),
        "mine/other": ("ssh://git@git.example.org/me/photos", "tasks/photos2"),
    }
    for task_id, (url, inner) in ours.items():
        root = house.root / "c"
        tree = Tree(root, remote=Remote(url))
        house.declarations[task_id] = Declared(task_id, root / inner, tree)
        house.tasks.apply("s", [Entry(task_id, "s", root / inner)])
    found = await community.search(ME, "monitoring")
    shown = {task["path"]: task.get("installed_as") for task in found["tasks"]}
    assert shown == {
        "monitoring/uptime-ping": ["mine/ping"],
        "monitoring/ssl-expiry": None,
        "backup/photos": ["mine/photos"],
    }
    assert [task["installed"] for task in found["tasks"]] == [True, False, True]
    narrow = ME.narrowed(tasks="other/*")
    hidden = await community.search(narrow, "uptime")
    assert hidden["tasks"][0]["installed"] is False
