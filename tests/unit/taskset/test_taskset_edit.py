"""Edits of a TaskSet's text: what is wanted and nothing else, in whatever way it is written."""

from __future__ import annotations

import random
from textwrap import dedent
from typing import Any

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.spec import yaml12
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.edit import EMPTY, add_entry, remove_entry, set_version
from dicode_mcp.spec.taskset.words import block, flow, scalar

FILE = "taskset.yaml"
ENTRY: dict[str, Any] = {"ref": {"url": "https://github.com/a/b", "branch": "main"}}
BLOCK = "ref:\n{0}  url: https://github.com/a/b\n{0}  branch: main\n"


def added(text: str, key: str = "x/y", entry: dict[str, Any] = ENTRY) -> str:
    return add_entry(text, FILE, key, entry)


def test_an_entry_is_added_behind_the_others_and_their_comments() -> None:
    text = dedent("""\
        # head
        kind: TaskSet   # a set
        spec:
          defaults: {timeout: "5m"}
          entries:
            'a':   # quoted
              ref: {path:   ./a}
              # belongs to a
            # belongs to nobody
          # nor this
        # end
        """)
    before, after = text.split("    # belongs to nobody")
    assert added(text) == (
        before
        + "    x/y:\n      ref:\n        url: https://github.com/a/b\n        branch: main\n"
        + "    # belongs to nobody"
        + after
    )


@pytest.mark.parametrize(
    "text",
    [
        EMPTY,
        "kind: TaskSet\n",
        "kind: TaskSet",
        "kind: TaskSet\nspec:\n",
        "kind: TaskSet\nspec: {}\n",
        "kind: TaskSet\nspec: ~   # nothing yet\n",
        "kind: TaskSet\nspec:\n  entries:   # none\n",
        "kind: TaskSet\nspec:\n  entries: {}  # none\n",
        "spec:\n  entries: null\nkind: TaskSet\n",
        "spec:\n  entries: {}\n  defaults: {timeout: 1m}\nkind: TaskSet\n",
        "--- # document\nkind: TaskSet\nspec:\n  entries:\n...\n",
        "{kind: TaskSet}\n",
        "{kind: TaskSet, spec: {entries: }}\n",
        "kind: TaskSet\nspec: {defaults: {}, entries: {}} # flow\n",
        "kind: TaskSet\nspec:\n  entries: {\n    # inside\n  }\n",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_set_without_entries_gets_its_first(text: str, end: str) -> None:
    text = text.replace("\n", end)
    after = added(text)
    assert yaml12.load(after, FILE).data["spec"]["entries"] == {"x/y": ENTRY}
    assert ("\r\n" in after) == (end == "\r\n" and "\n" in text)
    assert after.replace("\r\n", "").count("\r") == 0
    if end == "\r\n" and "\n" in text:
        assert after.replace("\r\n", "").count("\n") == 0
    for comment in ("# nothing yet", "# none", "# document", "# flow", "# inside"):
        assert (comment in after) == (comment in text)


def test_a_flow_of_entries_stays_a_flow() -> None:
    text = "kind: TaskSet\nspec:\n  entries: {a: {ref: {path: a}}, } # all\n"
    after = added(text)
    assert after == text.replace(
        "{a:", "{x/y: {ref: {url: https://github.com/a/b, branch: main}}, a:"
    )
    assert remove_entry(after, FILE, "x/y")[0] == text
    assert remove_entry(text, FILE, "a")[0] == "kind: TaskSet\nspec:\n  entries: { } # all\n"


def test_indentation_and_line_endings_are_those_of_the_file() -> None:
    text = "kind: TaskSet\r\nspec:\r\n    entries:\r\n        a:\r\n            ref: {path: a}\r\n"
    assert added(text) == text + (
        "        x/y:\r\n            ref:\r\n                url: https://github.com/a/b\r\n"
        "                branch: main\r\n"
    )


def test_a_byte_order_mark_and_a_missing_last_line_end_are_kept() -> None:
    text = "\ufeffkind: TaskSet\nspec:\n  entries:\n    ä: &no {}"
    with pytest.raises(SpecError):
        add_entry("\ufeffkind: [", FILE, "k", ENTRY)
    text = "\ufeffkind: TaskSet\nmetadata: {description: äöü€😀}\nspec:\n  entries:\n    a:\n"
    text += "      ref: {path: a}"
    after = added(text)
    assert after.startswith(text + "\n    x/y:\n")
    assert not after.endswith("\n")


def test_tabs_in_comments_and_values_stay() -> None:
    text = "kind: TaskSet\t# tab\nspec:\n  entries:\n    a:\n      ref: {path: a}\t# tab\n"
    assert added(text).startswith(text)


def test_block_text_at_the_end_keeps_its_lines() -> None:
    text = dedent("""\
        kind: TaskSet
        spec:
          entries:
            a:
              inline:
                name: a
                runtime: python
                trigger: {manual: true}
                script: |+
                  print(1)
                  # no comment


        # end
        """)
    after = added(text)
    script = yaml12.load(after, FILE).data["spec"]["entries"]["a"]["inline"]["script"]
    assert script == "print(1)\n# no comment\n\n\n"
    assert remove_entry(after, FILE, "x/y")[0] == text


def test_anchors_around_are_never_edited_wrongly() -> None:
    text = "kind: TaskSet\nspec:\n  entries:\n    a: {ref: {path: a}}\n    b: *a\n"
    assert added(text).startswith(text)
    text = "kind: TaskSet\nspec:\n  entries: &all\n    a: {ref: {path: a}}\n"
    try:
        after = added(text)
    except DicodeError:
        return
    assert list(yaml12.load(after, FILE).data["spec"]["entries"]) == ["a", "x/y"]


def test_a_text_that_is_no_set_is_refused() -> None:
    for text in ("", "# only a comment\n", "kind: Task\nname: x\n", "kind: TaskSet\nspec: 3\n"):
        with pytest.raises(SpecError):
            added(text)


def test_a_key_that_is_there_is_refused() -> None:
    text = "kind: TaskSet\nspec:\n  entries:\n    x/y: {ref: {path: a}}\n"
    with pytest.raises(DicodeError) as caught:
        added(text)
    assert caught.value.code is Code.CONFLICT
    with pytest.raises(DicodeError) as caught:
        remove_entry(text, FILE, "other")
    assert caught.value.code is Code.NOT_FOUND


def test_the_last_entry_leaves_a_set_that_can_be_read() -> None:
    text = (
        "kind: TaskSet\nspec:\n  entries:   # all\n    # one\n    a: {ref: {path: a}} # x\n  # y\n"
    )
    after, taken = remove_entry(text, FILE, "a")
    assert taken == "    a: {ref: {path: a}} # x\n"
    assert after == "kind: TaskSet\nspec:\n  entries: {}   # all\n    # one\n  # y\n"
    assert yaml12.load(after, FILE).data["spec"]["entries"] == {}


def test_a_version_is_put_in_the_place_of_the_other() -> None:
    text = dedent("""\
        kind: TaskSet
        spec:
          entries:
            a:
              ref:
                url: https://github.com/a/b   # theirs
                'tag': "v1"   # first
        """)
    assert set_version(text, FILE, "a", "tag", "v2") == text.replace("'tag': \"v1\"", "tag: v2")
    commit = "1" * 40
    assert f'commit: "{commit}"   # first' in set_version(text, FILE, "a", "commit", commit)
    with pytest.raises(DicodeError):
        set_version(text.replace("'tag'", "branch"), FILE, "a", "tag", "v2")


KEYS = ["a", "b-c", "d.e", "0x10", "123", "1.5", "true", "no", "monitoring/uptime-ping", "A" * 60]
WORDS = ["", "# c", "  ", "x: y", "# ä €", "- a"]


def random_set(rng: random.Random) -> str:
    """Write a set in one of many ways."""
    end = rng.choice(["\n", "\r\n"])
    indent, step = rng.choice([1, 2, 4]), rng.choice([1, 2, 3])

    def noise(column: int) -> str:
        kind = rng.random()
        if kind < 0.15:
            return end
        return " " * rng.choice([0, column, column + 3]) + "# note é" + end if kind < 0.3 else ""

    keys = rng.sample(KEYS[:-1], rng.randint(0, 5))
    out = rng.choice(["", "\ufeff", "# top" + end, "---" + end])
    out += f"kind: TaskSet{rng.choice(['', '  # k'])}{end}" + noise(0) + f"spec:{end}" + noise(0)
    pad = " " * indent
    if rng.random() < 0.3:
        out += f"{pad}defaults: {{timeout: 5m}}{end}"
    if not keys:
        return out + pad + rng.choice([f"entries: {{}}{end}", f"entries:{end}", f"entries: ~{end}"])
    if rng.random() < 0.25:
        items = ", ".join(f"{quoted(rng, key)}: {{ref: {{path: ./t}}}}" for key in keys)
        tail = rng.choice(["", ",", " , "])
        return out + f"{pad}entries: {{{items}{tail}}}{rng.choice(['', ' # all'])}{end}"
    out += f"{pad}entries:{rng.choice(['', '  # all'])}{end}"
    inner = pad + " " * step
    for key in keys:
        out += noise(len(inner)) + inner + quoted(rng, key) + ":"
        deeper = inner + " " * step
        out += rng.choice(
            [
                f" {{ref: {{path: './t'}}}}  # flow{end}",
                f"{end}{deeper}ref:{end}{deeper} path: ./t # p{end}{deeper}enabled: false{end}",
                f"{end}{deeper}ref: {{path: ./t}}{end}{deeper}hosts:{end}{deeper}- h1{end}",
                f"{end}{deeper}inline:{end}{deeper}  name: n{end}{deeper}  script: |{end}"
                f"{deeper}    # code{end}{deeper}    x = 1{end}{end}",
                f"{end}{deeper}ref: {{path: ./t}}{end}{deeper}overrides:{end}",
            ]
        )
    out += noise(len(inner))
    if rng.random() < 0.3:
        out += f"apiVersion: dicode/v1{end}"
    # where block text ends the file, its last line end is part of it
    return out if rng.random() < 0.8 or "x = 1" in out[-12:] else out.rstrip("\r\n")


def test_a_text_that_would_change_by_a_line_end_is_refused() -> None:
    text = "kind: TaskSet\nspec:\n  entries:\n    a:\n      inline:\n        script: |\n          x"
    with pytest.raises(DicodeError, match="cannot be edited"):
        added(text)


def quoted(rng: random.Random, key: str) -> str:
    read = yaml12.load(f"{key}: 1", "k")
    ways = [f"'{key}'", f'"{key}"']
    return rng.choice(ways if read.problems or list(read.data) != [key] else [*ways, key])


def test_whatever_way_a_set_is_written_the_rest_stays_byte_for_byte() -> None:
    rng = random.Random(22)
    done = 0
    for _ in range(1500):
        text = random_set(rng)
        key = rng.choice([*KEYS, "new/one", "z"])
        old = entries_of(text)
        if key in old:
            after, taken = remove_entry(text, FILE, key)
            left = [name for name in old if name != key]
            assert is_part_of(after.replace(" {}", "", 1) if not left else after, text)
            assert taken in text
        else:
            after = add_entry(text, FILE, key, ENTRY)
            assert is_part_of(text if old else without_nothing(text), after), (text, after)
            back, taken = remove_entry(after, FILE, key)
            if old:
                assert back in (text, text + "\n", text + "\r\n"), (text, after, back)
            done += 1
        found = yaml12.load(after.removeprefix("\ufeff"), FILE)
        assert not found.problems
    assert done > 500


def entries_of(text: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml12.load(text.removeprefix("\ufeff"), FILE).data
    spec: dict[str, Any] = data.get("spec") or {}
    return spec.get("entries") or {}


def without_nothing(text: str) -> str:
    return text.replace("entries: {}", "entries:").replace("entries: ~", "entries:")


def is_part_of(part: str, whole: str) -> bool:
    """Tell whether ``whole`` is ``part`` with one piece put in."""
    start = 0
    while start < min(len(part), len(whole)) and part[start] == whole[start]:
        start += 1
    rest = len(part) - start
    return len(whole) >= len(part) and (not rest or whole.endswith(part[start:]))


@pytest.mark.parametrize(
    "value",
    ["", "yes", "n", "~", "1e3", "0x1", "a: b", "a #b", "#ops", "- a", "'", '"', "\\", "a\nb",
     "\x85", "\u2028", "\t", "ü😀", "@x", "!t", "&a", "*a", "{a}", "[a]", "%x", "a,b", "=", "<<",
     "https://x.org/a?b=c#d", "https://x.org/a,b", "git@github.com:a/b", "null", "2222:22", ":",
     "a:", "?", "? a", "---", "...", " a", "a ", "-", "--", "+1", "1_000", "12:30:45", "0o7"],
)  # fmt: skip
def test_text_is_read_as_the_text_it_was(value: str) -> None:
    assert yaml12.load(f"k: {scalar(value)}", "f").data == {"k": value}
    assert yaml12.load(flow({"k": [value, {"x": value}]}), "f").data == {"k": [value, {"x": value}]}
    lines = "\n".join(block({value or "e": {"d": value}}, 2))
    assert yaml12.load(f"top:\n{lines}\n", "f").data == {"top": {value or "e": {"d": value}}}


@pytest.mark.parametrize("value", [True, False, None, 0, -1, 1.5, 10**20, 1e-9, 1e300])
def test_other_values_are_read_as_they_were(value: Any) -> None:
    found = yaml12.load(f"k: {scalar(value)}", "f").data
    assert found == {"k": value}
    assert type(found["k"]) is type(value)
