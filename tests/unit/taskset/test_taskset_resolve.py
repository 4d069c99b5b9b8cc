"""Following refs: what is found, what it is called, and whose fault a fault is."""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import indent

import pytest
from sethouse import TASK, SetHouse, broken, ids, told

from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.documents import read_set
from dicode_mcp.spec.taskset.nesting import MAX_DEPTH
from dicode_mcp.spec.taskset.resolution import namespace_of
from dicode_mcp.spec.taskset.world import Lock, Remote

URL = "https://git.example.org/team/repo.git"


@pytest.fixture
def house(tmp_path: Path) -> SetHouse:
    return SetHouse(tmp_path / "infra")


def entries(*lines: str, head: str = "") -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"kind: TaskSet\n{head}spec:\n  entries:\n{body}\n"


# Names


def test_a_set_is_called_by_its_own_name_then_the_sources_then_its_path(house: SetHouse) -> None:
    house.write({"taskset.yaml": entries("a: {ref: {path: a}}"), "a/task.yaml": TASK})
    assert ids(house.resolve()) == ["infra/a"]
    assert ids(house.resolve(name="source")) == ["source/a"]
    named = entries("a: {ref: {path: a}}", head="metadata: {name: own}\n")
    house.write({"taskset.yaml": named})
    assert ids(house.resolve(name="source")) == ["own/a"]


def test_a_sets_file_gives_its_name_when_it_is_not_called_taskset(tmp_path: Path) -> None:
    root = tmp_path / "r"
    assert namespace_of(root / "deploy" / "taskset.yaml", root, "r") == "deploy"
    assert namespace_of(root / "prod.yaml", root, "r") == "prod"
    assert namespace_of(root / "taskset.yaml", root, "r") == "r"


def test_nested_sets_add_segments_and_keys_may_hold_slashes(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries(
                "monitoring: {ref: {path: m/taskset.yaml}}",
                "web/uptime: {ref: {path: ./a/task.yaml}}",
            ),
            "m/taskset.yaml": entries(
                "check-health: {ref: {path: ../a}}", head="metadata: {name: ignored}\n"
            ),
            "a/task.yaml": TASK,
        }
    )
    assert ids(house.resolve()) == ["infra/monitoring/check-health", "infra/web/uptime"]


def test_a_name_that_is_no_id_is_told(tmp_path: Path) -> None:
    house = SetHouse(tmp_path / "not an id")
    house.write({"taskset.yaml": entries("a: {ref: {path: a}}"), "a/task.yaml": TASK})
    found = house.resolve()
    assert ids(found) == []
    assert "give the set a metadata.name" in told(found.broken)
    assert found.broken[0].everything


def test_an_id_that_two_entries_make_belongs_to_the_first(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries(
                "m/a: {ref: {path: first}}", "m: {ref: {path: m}}", "z: {ref: {path: first}}"
            ),
            "m/taskset.yaml": entries("a: {ref: {path: ../second}}"),
            "first/task.yaml": TASK,
            "second/task.yaml": TASK,
        }
    )
    found = house.resolve()
    assert {d.id: d.folder.name for d in found.tasks} == {"infra/m/a": "first", "infra/z": "first"}
    assert "m/taskset.yaml:4" in str(found.problems[0])
    assert "'infra/m/a' is declared twice" in str(found.problems[0])


# What a path leads to


def test_a_folder_without_a_set_holds_every_task_below_it(house: SetHouse) -> None:
    house.write({"a/task.yaml": TASK, "group/deep/b/task.yaml": TASK, "readme.txt": "x"})
    assert ids(house.resolve()) == ["a", "group/deep/b"]
    assert ids(house.resolve(name="s")) == ["s/a", "s/group/deep/b"]


def test_a_set_inside_a_plain_folder_is_a_set(house: SetHouse) -> None:
    house.write(
        {
            "a/task.yaml": TASK,
            "team/set/taskset.yaml": entries("b: {ref: {path: hidden}, overrides: {timeout: 7s}}"),
            "team/set/hidden/task.yaml": TASK,
        }
    )
    assert ids(house.resolve()) == ["a", "team/set/b"]
    assert house.task("team/set/b").spec.timeout == 7


def test_a_ref_to_a_plain_folder_holds_every_task_below_it(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries(
                "all: {ref: {path: many}, overrides: {timeout: 8s, entries: {x/b: {timeout: 9s}}}}"
            ),
            "many/a/task.yaml": TASK,
            "many/x/b/task.yaml": TASK,
        }
    )
    assert ids(house.resolve()) == ["infra/all/a", "infra/all/x/b"]
    assert house.task("infra/all/a").spec.timeout == 8
    assert house.task("infra/all/x/b").spec.timeout == 9


def test_a_source_that_is_one_task_is_named_after_its_folder(house: SetHouse) -> None:
    house.write({"task.yaml": TASK})
    assert ids(house.resolve()) == ["infra"]


def test_kind_decides_even_in_a_file_called_task_yaml(house: SetHouse) -> None:
    house.write({"set/task.yaml": entries("a: {ref: {path: ../a}}"), "a/task.yaml": TASK})
    house.write({"taskset.yaml": entries("s: {ref: {path: set}}")})
    assert ids(house.resolve()) == ["infra/s/a"]


@pytest.mark.parametrize(
    ("ref", "bits"),
    [
        ("{path: nowhere}", "leads to nowhere, which cannot be used: it does not exist"),
        ("{path: notes}", "no task.yaml and no taskset.yaml in notes or below it"),
        ("{path: notes.txt}", "neither a folder nor a task.yaml"),
        ("{path: empty.yaml}", "is empty"),
        ("{path: wrong.yaml}", "kind: found 'Task'"),
        ("{}", "needs a path or a url"),
        ("{path: a, branch: main}", "belongs to a ref with a url"),
        ("{url: 'ext::sh -c x'}", "names a transport helper"),
        ("{url: 'file::x'}", "names a transport helper"),
        ("{url: '--upload-pack=x'}", "is not a git URL"),
        ("{url: 'https://u:secret@h/x'}", "holds a password"),
        ("{url: 'https://h/x', tag: a, commit: '1'}", "stands beside tag"),
        ("{url: 'https://h/x', auth: {token_env: 'not a name'}}", "is not the name of an"),
    ],
)
def test_a_bad_ref_is_an_error_of_its_entry_alone(house: SetHouse, ref: str, bits: str) -> None:
    house.write(
        {
            "taskset.yaml": entries("good: {ref: {path: a}}", f"bad: {{ref: {ref}}}"),
            "a/task.yaml": TASK,
            "notes.txt": "x",
            "notes/today.txt": "x",
            "empty.yaml": "",
            "wrong.yaml": "kind: Task\n",
        }
    )
    found = house.resolve()
    assert ids(found) == ["infra/good"]
    assert list(broken(found)) == ["infra/bad"]
    assert bits in told(found.broken)
    assert "secret" not in told(found.broken)


def test_an_entry_written_twice_is_an_error_and_the_others_go_on(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries(*["a: {ref: {path: a}}"] * 2, "b: {ref: {path: a}}"),
            "a/task.yaml": TASK,
        }
    )
    found = house.resolve()
    assert ids(found) == ["infra/b"]
    assert "taskset.yaml:5: spec.entries.a: the key is there twice" in told(found.broken)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("kind: TaskSet\nspec: {defaults: {timout: 1}, entries: {}}", "did you mean 'timeout'?"),
        ("kind: TaskSet\nspce: {}", "did you mean 'spec'?"),
        ("kind: TaskSet\nspec: {entries: []}", "spec.entries: must be a map"),
        ("kind: TaskSet\nmetadata: {name: 'no id'}", "metadata.name"),
        ("kind: Tasks", "did you mean 'TaskSet'?"),
        ("apiVersion: v2\nkind: TaskSet", "apiVersion"),
        ("kind: TaskSet\nspec: &a {}", "anchors are not allowed"),
        ("kind: [", "is not valid YAML"),
        ("", "is empty"),
    ],
)
def test_a_bad_set_file_is_told_with_its_line(text: str, bits: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_set(text, "taskset.yaml")
    assert bits in caught.value.message
    assert caught.value.message.startswith("taskset.yaml:")


# Cycles and depth


def test_a_set_that_includes_itself_is_told_with_the_way(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries("a: {ref: {path: a}}", "m: {ref: {path: m}}"),
            "m/taskset.yaml": entries("back: {ref: {path: ..}}", "b: {ref: {path: ../a}}"),
            "a/task.yaml": TASK,
        }
    )
    found = house.resolve()
    assert ids(found) == ["infra/a", "infra/m/b"]
    assert (
        "the set includes itself: taskset.yaml → m/taskset.yaml → taskset.yaml"
        in broken(found)["infra/m/back"].problems[0].message
    )


@pytest.mark.parametrize(("depth", "good"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
def test_sets_stand_sixteen_deep_at_most(house: SetHouse, depth: int, good: bool) -> None:
    place = ""
    for _ in range(depth - 1):
        house.write({f"{place}taskset.yaml": entries("s: {ref: {path: s}}")})
        place += "s/"
    house.write({f"{place}taskset.yaml": entries("t: {ref: {path: t}}")})
    house.write({f"{place}t/task.yaml": TASK})
    found = house.resolve()
    assert len(found.tasks) == (1 if good else 0)
    assert (not good) == ("more than 16 sets stand inside each other" in told(found.broken))


# Repositories


def test_a_url_leads_to_the_root_of_its_repository(house: SetHouse) -> None:
    house.repository(URL, {"task.yaml": TASK})
    house.write({"taskset.yaml": entries(f"a: {{ref: {{url: '{URL}'}}}}")})
    (declared,) = house.resolve().tasks
    assert (declared.id, declared.revision) == ("infra/a", "1" * 40)
    assert house.resolve().needs == {Remote(URL, trusted=True)}


def test_a_url_with_a_path_leads_into_its_repository(house: SetHouse) -> None:
    house.repository(
        URL, {"sets/taskset.yaml": entries("t: {ref: {path: ../t}}"), "t/task.yaml": TASK}
    )
    house.write({"taskset.yaml": entries(f"a: {{ref: {{url: '{URL}', path: sets}}}}")})
    assert ids(house.resolve()) == ["infra/a/t"]


def test_a_problem_inside_a_repository_names_it(house: SetHouse) -> None:
    house.repository(URL, {"taskset.yaml": entries("t: {ref: {path: t}, overides: {}}")})
    house.write({"taskset.yaml": entries(f"a: {{ref: {{url: '{URL}'}}}}")})
    assert "git.example.org/team/repo:taskset.yaml:4: spec.entries.t.overides" in told(
        house.resolve().broken
    )


def test_a_repository_that_is_not_there_yet_is_asked_for(house: SetHouse) -> None:
    house.write(
        {"taskset.yaml": entries(f"a: {{ref: {{url: '{URL}', branch: dev, poll_interval: 5m}}}}")}
    )
    found = house.resolve()
    assert broken(found)["infra/a"].reason == "NotFetched"
    (remote,) = found.needs
    assert (remote.branch, remote.poll_interval_s) == ("dev", 300)


def test_why_a_repository_cannot_be_had_is_told_on_the_entry(house: SetHouse) -> None:
    house.checkouts.fail(URL, "AuthFailed", "it wants a login")
    house.write({"taskset.yaml": entries(f"a: {{ref: {{url: '{URL}'}}}}")})
    found = house.resolve()
    assert broken(found)["infra/a"].reason == "AuthFailed"
    assert "it wants a login" in told(found.broken)


@pytest.mark.parametrize("path", ["..", "../../x", "/etc", "~/x", "a/../../x"])
def test_a_ref_may_not_leave_its_checkout(house: SetHouse, path: str) -> None:
    house.write(
        {
            "taskset.yaml": entries(f"bad: {{ref: {{path: '{path}'}}}}", "a: {ref: {path: a}}"),
            "a/task.yaml": TASK,
        }
    )
    house.write({"../x/task.yaml": TASK})
    found = house.resolve(tree=house.confined())
    assert ids(found) == ["infra/a"]
    assert broken(found)["infra/bad"].reason == "LeavesCheckout"


@pytest.mark.parametrize("path", ["..", "../../x", "/etc", "~"])
def test_the_path_in_a_repository_may_not_leave_it(house: SetHouse, path: str) -> None:
    house.repository(URL, {"task.yaml": TASK})
    house.write({"taskset.yaml": entries(f"a: {{ref: {{url: '{URL}', path: '{path}'}}}}")})
    assert broken(house.resolve())["infra/a"].reason == "LeavesCheckout"


def test_a_link_does_not_lead_out_of_a_checkout(house: SetHouse) -> None:
    house.write({"taskset.yaml": entries("a: {ref: {path: link}}"), "../x/task.yaml": TASK})
    (house.root / "link").symlink_to(house.root.parent / "x")
    assert "a link leads out" in told(house.resolve(tree=house.confined()).broken)


def test_the_users_own_sets_may_lead_anywhere_on_their_disk(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries(
                "a: {ref: {path: ../elsewhere/a}}", "h: {ref: {path: ~/b/task.yaml}}"
            ),
            "../elsewhere/a/task.yaml": TASK,
            "../home/b/task.yaml": TASK,
        }
    )
    found = house.resolve()
    assert ids(found) == ["infra/a", "infra/h"]
    assert found.outside == {
        house.root.parent / "elsewhere" / "a",
        house.home / "b" / "task.yaml",
    }


def test_only_urls_the_user_vouches_for_may_be_sent_credentials(house: SetHouse) -> None:
    same = "https://git.example.org/other/same"
    other = "https://elsewhere.example.org/x"
    nested = entries(f"same: {{ref: {{url: '{same}'}}}}", f"other: {{ref: {{url: '{other}'}}}}")
    house.repository(URL, {"taskset.yaml": nested})
    house.write({"taskset.yaml": entries(f"a: {{ref: {{url: '{URL}'}}}}")})
    assert {r.url: r.trusted for r in house.resolve().needs} == {
        URL: True,
        same: True,
        other: False,
    }


# dev_ref


def test_dev_refs_count_in_dev_mode_and_may_leave_the_checkout(house: SetHouse) -> None:
    local = house.root.parent / "local"
    house.write(
        {
            "taskset.yaml": entries(
                f"inner: {{ref: {{path: a, dev_ref: {{path: '{local}/a'}}}}}}",
                f"beside: {{ref: {{path: a}}, dev_ref: {{path: '{local}/a/task.yaml'}}}}",
            ),
            "a/task.yaml": TASK,
            "../local/a/task.yaml": TASK,
        }
    )
    tree = house.confined()
    assert {d.folder for d in house.resolve(tree=tree).tasks} == {house.root / "a"}
    house.dev = True
    found = house.resolve(tree=tree)
    assert {d.folder for d in found.tasks} == {local / "a"}
    assert {d.revision for d in found.tasks} == {None}
    assert found.outside == {local / "a", local / "a" / "task.yaml"}
    reviewed = house.resolve(tree=replace(tree, trusted=False))
    assert {d.trust for d in found.tasks} == {"trusted"}
    assert {d.trust for d in reviewed.tasks} == {"untrusted"}


def test_dev_refs_of_a_strangers_repository_do_not_count(house: SetHouse) -> None:
    house.repository(
        URL,
        {
            "taskset.yaml": entries("t: {ref: {path: t, dev_ref: {path: /etc}}}"),
            "t/task.yaml": TASK,
        },
    )
    house.write({"taskset.yaml": entries(f"a: {{ref: {{url: '{URL}'}}}}")})
    house.dev = True
    (declared,) = house.resolve().tasks
    assert declared.folder.name == "t"
    assert declared.revision == "1" * 40


# enabled, hosts


def test_an_entry_for_other_servers_is_left_out_and_said_so(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries(
                "mine: {ref: {path: a}, hosts: [laptop, vps]}",
                "label: {ref: {path: a}, hosts: laptop}",
                "theirs: {ref: {path: a}, hosts: [vps]}",
                "group: {ref: {path: g}, hosts: [vps]}",
                "none: {ref: {path: a}, hosts: []}",
            ),
            "g/taskset.yaml": entries("x: {ref: {path: ../a}, hosts: [laptop]}"),
            "a/task.yaml": TASK,
        }
    )
    found = house.resolve()
    assert ids(found) == ["infra/label", "infra/mine"]
    assert [(o.id, o.reason, o.place) for o in found.off] == [
        ("infra/group", "hosts", "taskset.yaml:7"),
        ("infra/theirs", "hosts", "taskset.yaml:6"),
    ]
    assert "no server would take it" in told(found.broken)


def test_a_set_that_is_switched_off_says_nothing_of_its_faults(house: SetHouse) -> None:
    house.write({"taskset.yaml": entries("a: {ref: {path: nowhere}, enabled: false}")})
    found = house.resolve()
    assert (ids(found), found.broken) == ([], ())
    assert [(o.id, o.reason) for o in found.off] == [("infra/a", "disabled")]


def test_one_task_of_a_set_that_is_switched_off_can_be_switched_on(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries(
                "m: {ref: {path: m}, enabled: false, overrides: {entries: {x: {enabled: true}}}}"
            ),
            "m/taskset.yaml": entries("x: {ref: {path: ../a}}", "y: {ref: {path: ../a}}"),
            "a/task.yaml": TASK,
        }
    )
    assert ids(house.resolve()) == ["infra/m/x"]


# overrides.entries


def test_a_patch_for_an_entry_that_is_not_there_names_the_nearest(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries(
                "m: {ref: {path: m}, overrides: {entries: {helth: {timeout: 1s}}}}"
            ),
            "m/taskset.yaml": entries("health: {ref: {path: ../a}}"),
            "a/task.yaml": TASK,
        }
    )
    found = house.resolve()
    assert ids(found) == ["infra/m/health"]
    assert (
        "taskset.yaml:4: overrides.entries.helth: names no entry of this set;"
        " allowed: health; did you mean 'health'?" in told(found.broken)
    )
    assert list(broken(found)) == ["infra/m/helth"]


def test_a_task_has_no_entries_to_override(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries("a: {ref: {path: a}, overrides: {entries: {x: {}}}}"),
            "a/task.yaml": TASK,
        }
    )
    assert "is for a set, and this entry is one task" in told(house.resolve().broken)


# What is pinned


@dataclass
class ListLock(Lock):
    """A lock that pins what it lists."""

    commits: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def holds(self, entry: str) -> bool:
        return any(owner == entry for owner, _ in self.commits)

    def pinned(self, entry: str, remote: Remote) -> Remote | None:
        commit = self.commits.get((entry, remote.url))
        return replace(remote, commit=commit) if commit else None


def test_what_the_lock_pins_stays_at_its_commit_and_is_not_trusted(house: SetHouse) -> None:
    nested = "https://git.example.org/nested"
    house.repository(nested, {"task.yaml": TASK}, "3" * 40)
    house.repository(URL, {"taskset.yaml": entries(f"n: {{ref: {{url: '{nested}'}}}}")}, "2" * 40)
    house.write(
        {
            "taskset.yaml": entries(f"a: {{ref: {{url: '{URL}'}}}}", "own: {ref: {path: own}}"),
            "own/task.yaml": TASK,
        }
    )
    lock = ListLock({("a", URL): "2" * 40, ("a", nested): "3" * 40})
    house.find_lock = lambda file: lock if file == house.root / "taskset.yaml" else None
    found = house.resolve()
    assert [(d.id, d.trust, d.revision) for d in found.tasks] == [
        ("infra/a/n", "untrusted", "3" * 40),
        ("infra/own", "trusted", None),
    ]
    assert {(r.url, r.commit, r.trusted) for r in found.needs} == {
        (URL, "2" * 40, True),
        (nested, "3" * 40, False),
    }
    del lock.commits[("a", nested)]
    found = house.resolve()
    assert ids(found) == ["infra/own"]
    assert broken(found)["infra/a/n"].reason == "NotPinned"


# Inline tasks


def test_an_inline_task_that_lacks_its_script_is_told(house: SetHouse) -> None:
    house.write(
        {
            "taskset.yaml": entries(
                "good: {inline: {name: x, runtime: python, trigger: {manual: true}, script: a}}",
                "both: {inline: {}, ref: {path: x}}",
                "neither: {}",
            )
        }
    )
    found = house.resolve()
    assert ids(found) == ["infra/good"]
    assert "has both ref and inline" in str(broken(found)["infra/both"].problems[0])
    assert "needs a ref or an inline task" in str(broken(found)["infra/neither"].problems[0])


# A property: the same files resolve to the same, whatever order the disk lists them in


def _random_set(dice: random.Random, house: SetHouse, place: str, depth: int) -> None:
    lines: list[str] = []
    names = [f"e{n}" for n in range(dice.randint(1, 4))]
    for name in names:
        kind = dice.choice(["task", "set", "missing", "bad", "folder"] if depth < 4 else ["task"])
        extra = dice.choice(
            ["", ", enabled: false", ", hosts: [vps]", ", overrides: {timeout: 3s}"]
        )
        lines.append(f"{name}: {{ref: {{path: {name}}}{extra}}}")
        if kind == "task":
            house.write({f"{place}{name}/task.yaml": TASK})
        elif kind == "folder":
            house.write({f"{place}{name}/x/task.yaml": TASK, f"{place}{name}/y/task.yaml": TASK})
        elif kind == "bad":
            lines[-1] = f"{name}: {{reff: 1}}"
        elif kind == "set":
            _random_set(dice, house, f"{place}{name}/", depth + 1)
    dice.shuffle(lines)
    defaults = dice.choice(["", "  defaults: {timeout: 9s}\n", "  defaults: {enabled: false}\n"])
    body = indent("\n".join(lines), "    ")
    house.write({f"{place}taskset.yaml": f"kind: TaskSet\nspec:\n{defaults}  entries:\n{body}\n"})


@pytest.mark.parametrize("seed", range(40))
def test_equal_files_resolve_equally(tmp_path: Path, seed: int) -> None:
    house = SetHouse(tmp_path / "infra")
    _random_set(random.Random(seed), house, "", 0)
    first, second = house.resolve(), house.resolve()
    assert first == second
    assert repr(first) == repr(second)
    found = [*ids(first), *broken(first), *(off.id for off in first.off)]
    assert len(found) == len(set(found)), "every entry is one thing"
