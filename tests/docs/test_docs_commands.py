"""The commands of the documents on sources, sharing and hot reload, as written, against a server.

Public URLs are served here, home folders are the test's; nothing else is changed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from docs_live import TASK, Live, write

from dicode_mcp.config import read_config
from dicode_mcp.testing.gitserver import serving
from dicode_mcp.testing.lacking import lacking
from dicode_mcp.testing.waiting import until

pytestmark = pytest.mark.slow

REGISTRY = "https://github.com/dicode-community/registry"
MY_SOURCE = """\
data_dir: .dicode
sources:
  - {name: my-source, type: git, url: https://github.com/myorg/my-tasks.git, branch: main}
"""


@pytest.fixture
def live(tmp_path: Path) -> Generator[Live]:
    with serving(tmp_path / "served") as git:
        home = tmp_path / "home"
        home.mkdir()
        yield Live(home, git)


# Task Sharing & Community Registry

OFFERED = """\
apiVersion: dicode/v1
kind: TaskSet
metadata: {name: community}
spec:
  entries:
    monitoring/uptime-ping:
      ref: {url: https://github.com/dicode-ayo/task-uptime, branch: main}
      overrides: {description: HTTP health checks with Slack alerting}
    chat/poll:
      ref: {url: https://github.com/user/task-poll, branch: main}
      overrides: {description: Asks people}
    monitoring/ssl-expiry:
      ref: {url: https://github.com/user/task-ssl-check, branch: main}
      overrides: {description: SSL certificate expiration checker}
    monitoring/dns-resolve:
      ref: {url: https://github.com/user/task-dns, branch: main}
      overrides: {description: DNS resolution monitoring}
"""


async def test_searching_for_tasks(live: Live) -> None:
    live.repository(REGISTRY, {"taskset.yaml": OFFERED})
    async with live.serving(f"data_dir: .dicode\nregistries: [{REGISTRY}]\n"):
        said = await live.shell("dicode task search monitoring")
        found = await live.call("search_tasks", query="monitoring")
    printed = """
  monitoring/uptime-ping     HTTP health checks with Slack alerting    github.com/dicode-ayo/task-uptime
  monitoring/ssl-expiry      SSL certificate expiration checker        github.com/user/task-ssl-check
  monitoring/dns-resolve     DNS resolution monitoring                 github.com/user/task-dns

  3 tasks found. Install with: dicode task install <name>
"""  # noqa: E501
    assert said == (0, printed, "")
    assert found["count"] == 3


MINE = """\
# mine
kind: TaskSet
spec:
  entries:
    my-digest:
      ref: { path: ./tasks/my-digest }
"""
UPTIME = """\
name: Uptime
runtime: python
trigger: {cron: "*/5 * * * *"}
params:
  check_url: {default: https://example.org}
"""
ADDED = """\
    monitoring/uptime-ping:
      ref:
        url: https://github.com/dicode-ayo/task-uptime
        branch: main
"""


def somebody_with_a_set(live: Live) -> str:
    """Write a TaskSet of the reader's own, and the registry; gives the configuration."""
    live.repository(REGISTRY, {"taskset.yaml": OFFERED})
    live.repository("https://github.com/dicode-ayo/task-uptime", {"task.yaml": UPTIME})
    write(live.home / "mine", {"taskset.yaml": MINE, "tasks/my-digest/task.yaml": TASK})
    return f"""\
data_dir: .dicode
sources: [{{type: local, path: mine/taskset.yaml}}]
registries: [{REGISTRY}]
"""


async def test_installing_a_task(live: Live) -> None:
    async with live.serving(somebody_with_a_set(live)):
        said = await live.on_a_terminal("dicode task install monitoring/uptime-ping", "y")
        assert said.code == 0, said.out
        text = said.out
        assert text.startswith(
            "Added monitoring/uptime-ping to taskset.yaml\n"
            " github.com/dicode-ayo/task-uptime@main\n"
            "\n"
        )
        end = r"Task registered\. Next run: in \d+ (?:minute|second)s? \(cron: \*/5 \* \* \* \*\)\."
        assert re.fullmatch(end, text.splitlines()[-1]), text
        assert (live.home / "mine/taskset.yaml").read_text() == MINE + ADDED
        assert (live.home / "mine/dicode.lock").exists()
        await live.ids("mine/monitoring/uptime-ping")


async def test_installing_a_task_with_a_param_of_ones_own(live: Live) -> None:
    async with live.serving(somebody_with_a_set(live)):
        said = await live.shell(
            "dicode task install monitoring/uptime-ping"
            " --set params.check_url=https://api.myapp.com/health"
        )
        assert said.code == 0, said
        task = await live.call("get_task", id="mine/monitoring/uptime-ping")
        ready = next(c for c in task["conditions"] if c["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "PendingApproval")
    text = (live.home / "mine/taskset.yaml").read_text()
    assert text.startswith(MINE + ADDED)
    assert "check_url: https://api.myapp.com/health" in text


# Sources & TaskSets


def test_the_sources_of_the_document_are_read(tmp_path: Path) -> None:
    text = """\
# dicode.yaml
sources:
  - type: local
    path: /home/user/tasks
  - type: git
    url: https://github.com/myorg/my-tasks.git
    branch: main                  # default: main
    poll_interval: 30s            # default: 30s
    auth:
      token_env: GITHUB_TOKEN    # env var holding a PAT or access token
"""
    file = tmp_path / "dicode.yaml"
    local, git = read_config(text, "dicode.yaml", file=file, environ={}, home=tmp_path).sources
    assert (local.type, local.path, local.label) == ("local", "/home/user/tasks", "tasks")
    assert (git.label, git.branch, git.poll_interval) == ("my-tasks", "main", 30)
    assert git.auth
    assert git.auth.token_env == "GITHUB_TOKEN"


def my_local_tasks(live: Live) -> Path:
    """Serve ``my-source``, and write the folder that replaces it for a while."""
    live.repository("https://github.com/myorg/my-tasks.git", {"remote/task.yaml": TASK})
    local = live.home / "my-local-tasks"
    text = "kind: TaskSet\nspec: {entries: {local: {ref: {path: ./local}}}}\n"
    write(local, {"taskset.yaml": text, "local/task.yaml": TASK})
    return local


async def test_activating_and_deactivating_dev_mode_over_rest(live: Live) -> None:
    if shutil.which("curl") is None:
        lacking("the document uses curl")
    local = my_local_tasks(live)
    on = r"""
curl -X PATCH http://localhost:8080/api/sources/my-source/dev \
  -H 'Content-Type: application/json' \
  -d '{"enabled": true, "local_path": "/home/user/my-local-tasks/taskset.yaml"}'
""".replace("/home/user/my-local-tasks", str(local))
    off = r"""
curl -X PATCH http://localhost:8080/api/sources/my-source/dev \
  -H 'Content-Type: application/json' \
  -d '{"enabled": false}'
"""
    async with live.serving(MY_SOURCE):
        assert await live.ids("my-source/remote") == ["my-source/remote"]
        said = await live.shell(on)
        assert said.code == 0
        assert '"dev_mode":true' in said.out.replace(" ", "")
        assert [i.rpartition("/")[2] for i in await live.ids()] == ["local"]
        said = await live.shell(off)
        assert '"dev_mode":false' in said.out.replace(" ", "")
        assert await live.ids("my-source/remote") == ["my-source/remote"]


async def test_activating_dev_mode_over_mcp(live: Live) -> None:
    local = my_local_tasks(live)
    async with live.serving(MY_SOURCE):
        await live.ids("my-source/remote")
        source = await live.call(
            "switch_dev_mode", source="my-source", enabled=True, local_path=str(local)
        )
        assert source["dev_mode"] is True
        assert [i.rpartition("/")[2] for i in await live.ids()] == ["local"]


# Hot Reload & Dev Workflow


async def test_the_log_of_a_task_that_is_edited(live: Live) -> None:
    folder = live.home / "tasks" / "slack-digest"
    deno = "name: x\nruntime: deno\ntrigger: {manual: true}\n"
    write(folder, {"task.ts": "export default 1;\n"})
    (folder / "task.yaml").write_text(deno)
    async with live.serving("data_dir: .dicode\nsources: [{type: local, path: tasks}]\n"):
        await live.ids("slack-digest")
        (folder / "task.ts").write_text("export default 2;\n")
        await until(lambda: any("updated" in line for line in live.log))
    told = [line for line in live.log if "slack-digest" in line]
    shown = [
        r"\[\d\d:\d\d:\d\d\] task/slack-digest registered \(hash: [0-9a-f]{6}\)",
        r"\[\d\d:\d\d:\d\d\] file changed: tasks/slack-digest/task\.ts",
        r"\[\d\d:\d\d:\d\d\] task/slack-digest updated \(hash: [0-9a-f]{6}\)  ← \d+ms",
    ]
    for line, pattern in zip(told, shown, strict=False):
        # after it the server's own log has the facts, for programs
        assert re.fullmatch(pattern + r"(?: \([a-z_]+=.*\))?", line), told
    assert len(told) >= 3


async def test_switching_to_local_dev_and_back_to_git(live: Live) -> None:
    url = "https://github.com/myorg/my-tasks.git"
    one = "kind: TaskSet\nmetadata: {name: my-taskset}\nspec: {entries: {%s: {ref: {path: ./x}}}}\n"
    live.repository(url, {"taskset.yaml": one % "remote", "x/task.yaml": TASK})
    write(live.home / "code/my-tasks", {"taskset.yaml": one % "local", "x/task.yaml": TASK})
    config = f"data_dir: .dicode\nsources: [{{name: my-taskset, type: git, url: {url}}}]\n"
    async with live.serving(config):
        assert await live.ids("my-taskset/remote") == ["my-taskset/remote"]
        said = await live.shell(
            "# Switch to local dev\ndicode source dev my-taskset --local-path ~/code/my-tasks"
        )
        assert said.code == 0, said
        assert await live.ids("my-taskset/local") == ["my-taskset/local"]
        edited = "name: x\nruntime: python\ntrigger: {manual: true}\ndescription: edited\n"
        write(live.home / "code/my-tasks", {"x/task.yaml": edited})
        await until(lambda: any("my-taskset/local updated" in line for line in live.log))
        said = await live.shell("# Back to git\ndicode source dev my-taskset --disable")
        assert said.code == 0, said
        assert await live.ids("my-taskset/remote") == ["my-taskset/remote"]
