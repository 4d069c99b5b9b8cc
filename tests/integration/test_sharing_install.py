"""Installing, updating and removing others' tasks, over a real git server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.entry_forms import Wanted
from dicode_mcp.service.offers import Offer
from dicode_mcp.service.previews import Preview
from dicode_mcp.spec.taskset.documents import Ref
from dicode_mcp.testing.gitserver import serving
from dicode_mcp.testing.sharing import TASK, SharingHouse
from dicode_mcp.testing.waiting import until

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="the fixture serves with git")

URL = "https://github.com/dicode-ayo/task-uptime"
NESTED = "https://github.com/someone/checks"
UPTIME = (
    "name: Uptime\ndescription: HTTP health checks\nruntime: python\n"
    'trigger: {cron: "*/5 * * * *"}\n'
    "params:\n  check_url: {type: string, default: https://example.org}\n"
    "  tries: {type: number, default: 1}\n"
)
SET = """\
# mine
kind: TaskSet
spec:
  entries:
    # my own
    digest:
      ref: { path: ./digest }   # here
"""


@pytest.fixture
def house(tmp_path: Path) -> Generator[SharingHouse]:
    with serving(tmp_path / "served") as git:
        house = SharingHouse(tmp_path, git)
        house.write({"taskset.yaml": SET, "digest/task.yaml": TASK})
        yield house


def offer(url: str = URL) -> Offer:
    return Offer("monitoring/uptime-ping", "Uptime", "", (), "github.com/…", Ref(url=url), "r")


async def refused(what: Awaitable[object]) -> DicodeError:
    with pytest.raises(DicodeError) as caught:
        await what
    return caught.value


async def test_what_is_installed_is_written_as_documented_and_waits(house: SharingHouse) -> None:
    repository = house.repository(URL, {"task.yaml": UPTIME})
    house.offers["monitoring/uptime-ping"] = offer()
    async with house.living():
        made = await house.sharing.install(house.me, "monitoring/uptime-ping")
        assert house.set_text() == SET + (
            "    monitoring/uptime-ping:\n"
            "      ref:\n"
            "        url: https://github.com/dicode-ayo/task-uptime\n"
            "        branch: main\n"
        )
        assert repository.head() in house.lock_text()
        assert (made["entry"], made["taskset"]) == ("monitoring/uptime-ping", "taskset.yaml")
        assert (made["url"], made["ref"]) == ("github.com/dicode-ayo/task-uptime", "main")
        assert made["commit"] == repository.head()
        (task,) = made["tasks"]
        assert task["id"] == "mine/monitoring/uptime-ping"
        assert task["trigger"] == "cron: */5 * * * *"
        assert task["state"] == "pending_approval"
        assert task["hash"] in task["approve"]
        assert task["next_run"]
        assert made["pending"]
        assert house.entry(task["id"]).task is None
        await house.approve(task["id"], task["hash"])
        assert house.task(task["id"]).revision == repository.head()
        assert house.reason("mine/digest") == "Loaded"


async def test_a_repository_is_installed_by_its_url_with_values_for_params(
    house: SharingHouse,
) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        values = {"params.check_url": "https://api.myapp.com/health", "params.tries": "3"}
        made = await house.sharing.install(house.me, URL, values=values)
        assert made["id"] == "mine/task-uptime"
        assert "tries: 3\n" in house.set_text()
        await house.approve("mine/task-uptime", made["tasks"][0]["hash"])
        params = {p.name: p.default for p in house.task("mine/task-uptime").spec.params}
        assert params == {"check_url": "https://api.myapp.com/health", "tries": 3}


async def test_an_unknown_param_is_refused_with_the_nearest_name(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        error = await refused(house.sharing.install(house.me, URL, values={"params.chek_url": "x"}))
        assert error.code is Code.INVALID_PARAMS
        assert "did you mean 'check_url'" in error.message
        error = await refused(house.sharing.install(house.me, URL, values={"timeout": "1m"}))
        assert error.code is Code.INVALID_ARGUMENT
        error = await refused(
            house.sharing.install(house.me, URL, values={"params.tries": "s3cret"})
        )
        assert "s3cret" not in f"{error.message}{error.hint}{error.data}"
        assert house.set_text() == SET
        assert not house.lock_text()


async def test_a_set_is_installed_with_every_repository_it_names(house: SharingHouse) -> None:
    inner = house.repository(NESTED, {"http/task.yaml": UPTIME})
    outer = house.repository(
        URL,
        {
            "taskset.yaml": f"kind: TaskSet\nspec:\n  entries:\n    web: {{ref: {{url: '{NESTED}',"
            " path: http}}}\n    own: {ref: {path: own}}\n".replace("}}}", "}}"),
            "own/task.yaml": TASK,
        },
    )
    async with house.living():
        made = await house.sharing.install(
            house.me, URL, as_key="infra", values={"params.tries": 2}
        )
        assert [task["id"] for task in made["tasks"]] == ["mine/infra/own", "mine/infra/web"]
        assert {task["state"] for task in made["tasks"]} == {"pending_approval"}
        assert [one["commit"] for one in made["repositories"]] == [inner.head()]
        assert inner.head() in house.lock_text()
        assert outer.head() in house.lock_text()
        # only the task that declares the param gets it
        assert "entries:\n          web:\n            params:\n" in house.set_text()
        before = inner.head()
        house.commit(inner, {"http/task.yaml": UPTIME.replace("Uptime", "Other")})
        await house.reconciler.sync("mine")
        assert house.registry.claims("mine")["mine/infra/web"].folder.is_dir()
        declared = house.reconciler.declared(house.entry("mine/infra/web"))
        assert declared is not None
        assert declared.revision == before


async def test_no_branch_moves_what_is_installed(house: SharingHouse) -> None:
    repository = house.repository(URL, {"task.yaml": UPTIME})
    first = repository.head()
    async with house.living():
        made = await house.sharing.install(house.me, URL)
        digest = made["tasks"][0]["hash"]
        await house.approve("mine/task-uptime", digest)
        house.commit(repository, {"task.py": "result = 2\n", "task.yaml": UPTIME})
        await house.reconciler.sync("mine")
        assert house.task("mine/task-uptime").revision == first
        house.commit(repository, {"task.yaml": UPTIME.replace("Uptime", "New")}, parent=None)
        await house.reconciler.sync("mine")
        assert house.task("mine/task-uptime").digest == digest
        assert house.reason("mine/task-uptime") == "Loaded"


async def test_an_update_is_shown_waits_and_comes_in_force_when_approved(
    house: SharingHouse,
) -> None:
    repository = house.repository(URL, {"task.yaml": UPTIME})
    first = repository.head()
    async with house.living():
        made = await house.sharing.install(house.me, URL)
        await house.approve("mine/task-uptime", made["tasks"][0]["hash"])
        same = await house.updates.update(house.me, "task-uptime")
        assert (same["status"], same["tasks"]) == ("up_to_date", [])
        second = house.commit(
            repository,
            {"task.yaml": UPTIME + "permissions: {net: [evil.example]}\n"},
            message="one more host",
        )
        lock = house.lock_text()
        seen = await house.updates.update(house.me, "task-uptime", dry_run=True)
        assert seen["status"] == "available"
        assert (seen["from"], seen["to"]) == (first, second)
        assert seen["log"]["subject"] == "one more host"
        assert "Ada" in seen["log"]["author"]
        assert seen["tasks"][0]["change"] == "changed"
        assert seen["tasks"][0]["changes"]["grants"]["added"] == {
            "permissions.net[evil.example]": "evil.example"
        }
        assert house.lock_text() == lock
        moved = await house.updates.update(house.me, "mine/task-uptime")
        assert moved["status"] == "updated"
        assert moved["pending"]
        assert second in house.lock_text()
        assert first not in house.lock_text()
        assert house.reason("mine/task-uptime") == "PendingApproval"
        assert house.task("mine/task-uptime").revision == first
        waiting = await house.updates.update(house.me, "task-uptime")
        assert waiting["status"] == "up_to_date"
        assert waiting["tasks"][0]["hash"] == moved["tasks"][0]["hash"]
        await house.approve("mine/task-uptime", moved["tasks"][0]["hash"])
        assert house.task("mine/task-uptime").revision == second


async def test_an_update_goes_to_a_commit_or_a_tag_that_is_named(house: SharingHouse) -> None:
    repository = house.repository(URL, {"task.yaml": UPTIME})
    first = repository.head()
    repository.tag("v1", first)
    second = house.commit(repository, {"task.yaml": UPTIME.replace("Uptime", "Two")})
    repository.tag("v2", second)
    async with house.living():
        await house.sharing.install(house.me, URL)
        back = await house.updates.update(house.me, "task-uptime", commit=first)
        assert (back["from"], back["to"]) == (second, first)
        assert "branch: main" in house.set_text()
        on = await house.updates.update(house.me, "task-uptime", tag="v2")
        assert (on["to"], on["ref"]) == (second, "main")
        await house.sharing.install(house.me, URL, as_key="tagged", wanted=Wanted(tag="v1"))
        assert "        tag: v1\n" in house.set_text()
        moved = await house.updates.update(house.me, "tagged", tag="v2")
        assert (moved["from"], moved["to"], moved["ref"]) == (first, second, "v2")
        assert "        tag: v2\n" in house.set_text()
        assert "v1" not in house.set_text() + house.lock_text()
        error = await refused(house.updates.update(house.me, "tagged", tag="v9"))
        assert error.code is Code.NOT_FOUND


async def test_what_is_uninstalled_leaves_the_rest_as_it_was(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    chain = TASK.replace("{manual: true}", "{chain: {from: task-uptime}}")
    house.write(
        {
            "taskset.yaml": SET + "    after: {ref: {path: after}}\n",
            "after/task.yaml": chain,
        }
    )
    before = house.set_text()
    async with house.living():
        made = await house.sharing.install(house.me, URL)
        await house.approve("mine/task-uptime", made["tasks"][0]["hash"])
        gone = await house.sharing.uninstall(house.me, "task-uptime")
        assert house.set_text() == before
        assert "sets: {}" in house.lock_text()
        assert house.registry.get("mine/task-uptime") is None
        assert house.withdrawn == ["mine/task-uptime"]
        assert "url: https://github.com/dicode-ayo/task-uptime" in gone["removed"]
        assert gone["dependents"] == [
            {"id": "mine/after", "needs": "mine/task-uptime", "by": "trigger.chain.from"}
        ]
        error = await refused(house.sharing.uninstall(house.me, "task-uptime"))
        assert error.code is Code.TASK_NOT_FOUND


async def test_an_entry_of_the_users_own_goes_only_by_its_whole_name(house: SharingHouse) -> None:
    async with house.living():
        error = await refused(house.updates.update(house.me, "digest"))
        assert "not pinned" in error.message
        error = await refused(house.sharing.uninstall(house.me, "diges"))
        assert error.code is Code.TASK_NOT_FOUND
        gone = await house.sharing.uninstall(house.me, "mine/digest")
        assert gone["removed"] == "    digest:\n      ref: { path: ./digest }   # here\n"
        assert not gone["installed"]
        assert "entries: {}" in house.set_text()


async def test_a_key_that_is_there_is_refused(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        await house.sharing.install(house.me, URL)
        error = await refused(house.sharing.install(house.me, URL))
        assert error.code is Code.CONFLICT
        assert 'update_task with id "mine/task-uptime"' in (error.hint or "")
        made = await house.sharing.install(house.me, URL, as_key="second")
        assert made["id"] == "mine/second"


async def test_a_place_without_a_task_is_refused_with_what_there_is(house: SharingHouse) -> None:
    house.repository(URL, {"a/b/task.yaml": TASK, "c/task.yaml": TASK})
    async with house.living():
        error = await refused(house.sharing.install(house.me, URL, wanted=Wanted(path="nope")))
        assert error.code is Code.NOT_FOUND
        assert error.data["there"] == ["a/b", "c"]
        error = await refused(house.sharing.install(house.me, URL, wanted=Wanted(path="../../x")))
        assert "leaves" in error.message
        assert house.set_text() == SET


async def test_a_task_that_cannot_be_read_is_not_installed(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": "name: x\nruntime: python\n"})
    async with house.living():
        error = await refused(house.sharing.install(house.me, URL))
        assert error.code is Code.INVALID_SPEC
        assert "trigger" in error.message
        assert house.set_text() == SET


async def test_an_update_that_cannot_be_read_changes_nothing(house: SharingHouse) -> None:
    repository = house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        await house.sharing.install(house.me, URL)
        before = house.lock_text()
        house.commit(repository, {"task.yaml": "name: x\n"})
        error = await refused(house.updates.update(house.me, "task-uptime"))
        assert error.code is Code.INVALID_SPEC
        assert house.lock_text() == before


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c id",
        "file:///etc",
        "file::/etc",
        "http://github.com/a/b",
        "git://github.com/a/b",
        "https://user:s3cret@github.com/a/b",
        "https://127.0.0.1/a/b",
        "https://[::1]/a/b",
        "https://169.254.169.254/latest/meta",
        "https://10.0.0.7/a/b.git",
        "ssh://git@192.168.1.2/a/b.git",
        "git@localhost:a/b.git",
    ],
)
async def test_a_url_that_is_not_public_is_refused(house: SharingHouse, url: str) -> None:
    async with house.living():
        # what the test's own checkouts would allow, an installed URL may not reach
        error = await refused(house.sharing.install(house.me, url))
        assert error.code is Code.FORBIDDEN
        assert "s3cret" not in f"{error.message}{error.hint}{error.data}"
        assert house.set_text() == SET
        assert not house.lock_text()


async def test_a_nested_private_repository_is_a_fault_of_its_entry_alone(
    house: SharingHouse,
) -> None:
    nested = "kind: TaskSet\nspec:\n  entries:\n"
    nested += "    bad: {ref: {url: 'https://10.1.2.3/x/y'}}\n    good: {ref: {path: good}}\n"
    house.repository(URL, {"taskset.yaml": nested, "good/task.yaml": TASK})
    async with house.living():
        made = await house.sharing.install(house.me, URL, as_key="mixed")
        assert [task["id"] for task in made["tasks"]] == ["mine/mixed/good"]
        told = " ".join(problem["message"] for problem in made["problems"])
        assert "private address" in told
        assert house.reason("mine/mixed/bad") == "NotPinned"


async def test_credentials_that_a_registry_names_are_not_taken_over(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": TASK})
    house.offers["x"] = Offer(
        "x", "x", "", (), "r", Ref.read({"url": URL, "auth": {"token_env": "GITHUB_TOKEN"}}), "r"
    )
    async with house.living():
        await house.sharing.install(house.me, "x")
        assert "auth" not in house.set_text()


async def test_a_lock_edited_to_a_commit_that_is_not_there_fails_closed(
    house: SharingHouse,
) -> None:
    repository = house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        made = await house.sharing.install(house.me, URL)
        await house.approve("mine/task-uptime", made["tasks"][0]["hash"])
        lock = house.mine / "dicode.lock"
        lock.write_text(lock.read_text().replace(repository.head(), "f" * 40))
        await house.reconciler.sync("mine")
        assert house.reason("mine/task-uptime") == "NoSuchCommit"
        assert house.task("mine/task-uptime").revision == repository.head()
        assert house.reason("mine/digest") == "Loaded"


async def test_a_broken_lock_keeps_the_last_good_version_and_is_told(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        made = await house.sharing.install(house.me, URL)
        await house.approve("mine/task-uptime", made["tasks"][0]["hash"])
        lock = house.mine / "dicode.lock"
        good = lock.read_text()
        lock.write_text(good.replace("version: 1", "version: 1\noops: 2"))
        await house.reconciler.sync("mine")
        state = house.registry.source_state("mine")
        assert state is not None
        assert any("dicode.lock:5" in str(problem) for problem in state.problems), state.problems
        assert house.reason("mine/digest") == "Loaded"
        assert house.reason("mine/task-uptime") == "InvalidLock"
        assert house.task("mine/task-uptime").spec.name == "Uptime"
        error = await refused(house.updates.update(house.me, "task-uptime"))
        assert error.code is Code.CONFLICT
        lock.write_text(good)
        await house.reconciler.sync("mine")
        assert house.reason("mine/task-uptime") == "Loaded"


async def test_a_lock_that_is_gone_for_a_while_brings_nothing_unreviewed_in_force(
    house: SharingHouse,
) -> None:
    repository = house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        made = await house.sharing.install(house.me, URL)
        await house.approve("mine/task-uptime", made["tasks"][0]["hash"])
        repository.commit({"task.yaml": UPTIME + "timeout: 9s\n"})
        await house.updates.update(house.me, "task-uptime")
        lock = house.mine / "dicode.lock"
        good = lock.read_text()
        for missing in (lock.unlink, lambda: lock.write_text("[")):
            missing()
            await house.reconciler.sync("mine")
            assert house.reason("mine/task-uptime") == "InvalidLock"
            assert house.task("mine/task-uptime").spec.timeout == 60
            assert house.reason("mine/digest") == "Loaded"
            lock.write_text(good)
            await house.reconciler.sync("mine")
            assert house.reason("mine/task-uptime") == "PendingApproval"
            assert house.task("mine/task-uptime").spec.timeout == 60


async def test_a_change_of_the_lock_is_seen_without_a_call(house: SharingHouse) -> None:
    repository = house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        await house.sharing.install(house.me, URL)
        lock = house.mine / "dicode.lock"
        lock.write_text(lock.read_text().replace(repository.head(), "f" * 40))
        await until(lambda: house.reason("mine/task-uptime") == "NoSuchCommit")
        lock.write_text(lock.read_text().replace("f" * 40, repository.head()))
        await until(lambda: house.reason("mine/task-uptime") == "PendingApproval")


async def test_another_branch_in_the_set_is_not_followed_without_a_review(
    house: SharingHouse,
) -> None:
    repository = house.repository(URL, {"task.yaml": UPTIME})
    house.commit(repository, {"task.yaml": UPTIME.replace("Uptime", "Evil")}, branch="evil")
    async with house.living():
        await house.sharing.install(house.me, URL)
        path = house.mine / "taskset.yaml"
        path.write_text(house.set_text().replace("branch: main", "branch: evil"))
        await house.reconciler.sync("mine")
        assert house.reason("mine/task-uptime") == "NotPinned"
        moved = await house.updates.update(house.me, "task-uptime")
        assert moved["to"] == repository.head("evil")
        assert house.reason("mine/task-uptime") == "PendingApproval"


async def test_two_installs_at_once_are_both_there(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    house.repository(NESTED, {"task.yaml": TASK})
    async with house.living():
        await asyncio.gather(
            house.sharing.install(house.me, URL), house.sharing.install(house.me, NESTED)
        )
        assert "    task-uptime:\n" in house.set_text()
        assert "    checks:\n" in house.set_text()
        assert house.reason("mine/task-uptime") == "PendingApproval"
        assert house.reason("mine/checks") == "PendingApproval"


async def test_without_a_set_of_the_users_the_server_has_its_own(house: SharingHouse) -> None:
    (house.mine / "taskset.yaml").unlink()
    house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        assert [state.name for state in house.registry.source_states()] == ["mine"]
        made = await house.sharing.install(house.me, URL)
        assert made["id"] == "installed/task-uptime"
        assert made["file"] == str(house.data / "installed" / "taskset.yaml")
        assert house.reason("installed/task-uptime") == "PendingApproval"
    async with house.living():
        assert house.reason("installed/task-uptime") == "PendingApproval"
        await house.sharing.uninstall(house.me, "installed/task-uptime")
        assert house.registry.get("installed/task-uptime") is None


async def test_a_failed_install_makes_no_set_of_the_servers_own(house: SharingHouse) -> None:
    (house.mine / "taskset.yaml").unlink()
    house.repository(URL, {"readme": "nothing"})
    async with house.living():
        error = await refused(house.sharing.install(house.me, URL))
        assert error.code is Code.NOT_FOUND
        assert not (house.data / "installed" / "taskset.yaml").exists()
        assert [state.name for state in house.registry.source_states()] == ["mine"]


async def test_a_read_only_file_is_not_replaced(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    path = house.mine / "taskset.yaml"
    path.chmod(0o444)
    async with house.living():
        error = await refused(house.sharing.install(house.me, URL))
        assert error.code is Code.FORBIDDEN
        assert "read-only" in error.message
        assert house.set_text() == SET


async def test_a_name_that_no_registry_offers_is_told(house: SharingHouse) -> None:
    async with house.living():
        error = await refused(house.sharing.install(house.me, "monitoring/nope"))
        assert error.code is Code.NOT_FOUND
        error = await refused(house.sharing.install(house.me, "github.com/a/b"))
        assert "https://github.com/a/b" in (error.hint or "")


async def test_what_somebody_edits_meanwhile_is_kept(
    house: SharingHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        path = house.mine / "taskset.yaml"
        look = house.previews.look

        async def slow(*args: Any, **more: Any) -> Preview:
            found = await look(*args, **more)
            path.write_text(SET + "    # typed meanwhile\n")
            return found

        monkeypatch.setattr(house.previews, "look", slow)
        await house.sharing.install(house.me, URL)
        assert "# typed meanwhile" in house.set_text()
        assert "task-uptime" in house.set_text()


async def test_pins_without_their_entry_are_removed_by_their_key(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        await house.sharing.install(house.me, URL)
        (house.mine / "taskset.yaml").write_text(SET)
        await house.reconciler.sync("mine")
        error = await refused(house.updates.update(house.me, "task-uptime"))
        assert error.code is Code.CONFLICT
        assert "uninstall_task" in (error.hint or "")
        gone = await house.sharing.uninstall(house.me, "task-uptime")
        assert gone["removed"] == ""
        assert "sets: {}" in house.lock_text()
        assert house.set_text() == SET


async def test_a_folder_of_this_machine_that_a_registry_names_is_the_users_own(
    house: SharingHouse,
) -> None:
    house.write({"../shelf/greet/task.yaml": TASK})
    folder = str(house.root / "shelf" / "greet")
    house.offers["greet"] = Offer("greet", "Greet", "", (), folder, Ref(path=folder), "r")
    async with house.living():
        made = await house.sharing.install(house.me, "greet")
        assert made["path"] == folder
        assert not made["pending"]
        assert house.reason("mine/greet") == "Loaded"
        assert not house.lock_text()


async def test_a_repository_that_an_update_adds_is_pinned_with_it(house: SharingHouse) -> None:
    outer = house.repository(
        URL,
        {"taskset.yaml": "kind: TaskSet\nspec:\n  entries:\n    own: {ref: {path: own}}\n"},
    )
    house.commit(outer, {"own/task.yaml": TASK})
    inner = house.repository(NESTED, {"task.yaml": UPTIME})
    async with house.living():
        await house.sharing.install(house.me, URL, as_key="infra")
        more = "kind: TaskSet\nspec:\n  entries:\n    own: {ref: {path: own}}\n"
        house.commit(outer, {"taskset.yaml": more + f"    web: {{ref: {{url: '{NESTED}'}}}}\n"})
        moved = await house.updates.update(house.me, "mine/infra/own")
        assert {task["id"]: task["change"] for task in moved["tasks"]} == {
            "mine/infra/own": "added",
            "mine/infra/web": "added",
        }
        assert [one["commit"] for one in moved["repositories"]] == [inner.head()]
        assert inner.head() in house.lock_text()
        error = await refused(house.sharing.uninstall(house.me, "mine/infra/web"))
        assert 'uninstall_task with id "mine/infra"' in (error.hint or "")


async def test_an_unreachable_remote_changes_nothing_on_update(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        await house.sharing.install(house.me, URL)
        before = house.lock_text()
        house.urls[URL] = house.urls[URL].replace("repo1", "gone")
        error = await refused(house.updates.update(house.me, "task-uptime"))
        assert error.code in (Code.UNREACHABLE, Code.NOT_FOUND)
        assert house.lock_text() == before


async def test_a_caller_who_sees_other_tasks_only_installs_nothing(house: SharingHouse) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    async with house.living():
        narrow = house.me.narrowed(tasks="reports/*")
        error = await refused(house.sharing.install(narrow, URL))
        assert error.code is Code.FORBIDDEN
        assert house.set_text() == SET
        reader = house.me.narrowed(read_only=True)
        error = await refused(house.sharing.install(reader, URL))
        assert error.code is Code.FORBIDDEN


async def test_an_id_that_another_source_has_is_refused_before_anything_is_written(
    house: SharingHouse,
) -> None:
    house.repository(URL, {"task.yaml": UPTIME})
    house.write({"taskset.yaml": SET + "    task-uptime/x: {ref: {path: digest}}\n"})
    before = house.set_text()
    house.repository(NESTED, {"x/task.yaml": TASK})
    async with house.living():
        error = await refused(house.sharing.install(house.me, NESTED, as_key="task-uptime"))
        assert error.code is Code.CONFLICT
        assert "give as" in (error.hint or "")
        assert house.set_text() == before
