"""The SDK where no server is: importing it, its values, its cost."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dicode_sdk
from dicode_sdk import NAMES, DicodeError, NotInTask
from dicode_sdk._api import Params
from dicode_sdk._script import read_main
from dicode_sdk._wire import NotJson, decode, encode, plain


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_task_used_elsewhere_says_how_to_run_the_script(name: str) -> None:
    with pytest.raises(NotInTask, match=f"dicode_sdk.{name} exists only inside a running task"):
        getattr(dicode_sdk, name)


def test_a_name_that_does_not_exist_is_an_ordinary_attribute_error() -> None:
    assert not hasattr(dicode_sdk, "no_such_name")


def test_every_call_has_an_asynchronous_twin() -> None:
    from dicode_sdk import _api

    kinds = [value for value in vars(_api).values() if isinstance(value, type)]
    missing: list[str] = []
    for kind in kinds:
        names = {name for name in vars(kind) if not name.startswith("_")}
        calls = {name for name in names if not name.endswith("_async")}
        missing += [f"{kind.__name__}.{n}" for n in calls if f"{n}_async" not in names]
    assert set(missing) <= {"Params.keys", "Log.warning"}


def test_parameters_read_like_a_mapping() -> None:
    params = Params({"a": 1, "none": None})
    assert (params["a"], params.get("none", 5), params.get("x"), len(params)) == (1, 5, None, 2)
    assert dict(params) == params.all() == {"a": 1, "none": None}
    assert "a" in params
    with pytest.raises(KeyError, match="this run has: a, none"):
        params["b"]
    assert "1" not in repr(params)


@dataclass
class Point:
    x: int


class Model:
    def model_dump(self) -> dict[str, int]:
        return {}


@pytest.mark.parametrize(
    ("value", "path", "hint"),
    [
        ({"a": [1, {"b": Point(1)}]}, "$.a[1].b", "dataclasses.asdict(value)"),
        (Model(), "$", 'value.model_dump(mode="json")'),
        ([Path("/x")], "$[0]", "str(value)"),
        ({"s": {1}}, "$.s", "sorted(value)"),
        ((1, float("inf")), "$[1]", "None, or a number"),
        ({"a": {2: 3}}, "$.a", "str(key)"),
        ({"g": (n for n in (1, 2))}, "$.g", "list(value)"),
    ],
)
def test_what_json_cannot_hold_is_named_with_its_place_and_a_way_out(
    value: Any, path: str, hint: str
) -> None:
    with pytest.raises(NotJson) as caught:
        plain(value)
    assert (caught.value.path, caught.value.hint) == (path, hint)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(NotJson, match="contains itself"):
        plain(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        1e300,
        2**70,
        "",
        'ü\n\x00\x1e\u2028𝄞"\\',
        [],
        {},
        {"a": [1, {"b": [None, False]}]},
        {"": "empty key"},
    ],
)
def test_our_json_is_the_librarys_json(value: Any) -> None:
    text = encode(plain(value))
    assert json.loads(text) == value
    assert decode(json.dumps(value)) == value
    assert text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def main(): pass", (True, False)),
        ("async def main(): pass", (True, False)),
        ("def main(): pass\nmain()", (True, True)),
        ("def main(): pass\nif __name__ == '__main__':\n    x = [main()]", (True, True)),
        ("import asyncio\nasync def main(): pass\nasyncio.run(main())", (True, True)),
        ("def main(): pass\ndef other(): main()", (True, False)),
        ("def main(): pass\nclass A:\n    def f(self): main()", (True, False)),
        ("def main(): pass\nf = lambda: main()", (True, False)),
        ("try:\n    from x import main\nexcept ImportError:\n    def main(): pass", (True, False)),
        ("from x import main", (False, False)),
    ],
)
def test_main_is_read_from_the_source(source: str, expected: tuple[bool, bool]) -> None:
    assert read_main(source.encode(), "task.py") == expected


def test_an_error_of_the_server_shows_its_hint() -> None:
    error = DicodeError("forbidden", "no", "add a line")
    assert str(error) == "no (add a line)"
    assert (error.code, error.message, error.hint) == ("forbidden", "no", "add a line")


def test_the_sdk_imports_next_to_nothing() -> None:
    root = Path(dicode_sdk.__file__).parent.parent
    script = (
        "import sys; before = set(sys.modules); "
        f"sys.path.insert(0, {str(root)!r}); import dicode_sdk._bootstrap; "
        "print(' '.join(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name for name in done.stdout.split() if not name.startswith("dicode_sdk")}
    assert loaded <= {"_json", "__future__"}


def test_the_sdk_starts_no_thread_by_itself() -> None:
    root = Path(dicode_sdk.__file__).parent.parent
    script = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "import os, socket, threading\n"
        "from dicode_sdk import _channel, _api\n"
        "ours, theirs = socket.socketpair()\n"
        'ours.send(b\'{"id":1,"result":["k"]}\\n\')\n'
        "print(_api.Kv(_channel.Channel(theirs.detach())).list(), threading.active_count())\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['k'] 1\n"
