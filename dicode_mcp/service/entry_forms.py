"""What a call asks to install, read: a name or a URL, a version, values for params. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.sources.git.failures import GitError
from dicode_mcp.sources.git.remote import Reach, parse, require
from dicode_mcp.sources.working.names import check_branch
from dicode_mcp.spec.giturl import repository_name, short_url
from dicode_mcp.spec.ids import check_task_id
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.params import bind_params
from dicode_mcp.spec.problems import nearest
from dicode_mcp.spec.taskset.documents import Ref

_URL = re.compile(r"[a-z0-9+.-]+://|[^/\s]*::|[^/@\s]+@[^/:\s]+:", re.IGNORECASE)
_HOSTLIKE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+/[^/\s]+/[^\s]+", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PARAMS = "params."


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which version of a repository is asked for, and where in it; None: as offered."""

    path: str | None = None
    branch: str | None = None
    tag: str | None = None
    commit: str | None = None

    def check(self) -> None:
        """Refuse names that git does not take, and two versions at once."""
        given = [name for name in ("branch", "tag", "commit") if getattr(self, name) is not None]
        if len(given) > 1:
            raise invalid(f"{' and '.join(given)} stand side by side", "give one of them")
        if self.commit is not None:
            check_commit(self.commit)
        for name in ("branch", "tag"):
            value: str | None = getattr(self, name)
            if value is None:
                continue
            try:
                check_branch(value)
            except ValueError as error:
                raise invalid(f"the {name}'s name {error}", 'for example "main"') from None


def check_commit(commit: str) -> None:
    """Refuse what is not the full id of a commit."""
    if not _COMMIT.fullmatch(commit):
        raise invalid("commit is not the full id of a commit", "give 40 hex digits")


def is_url(what: str) -> bool:
    """Tell a repository's URL from the name of what a registry offers."""
    return _URL.match(what) is not None


def shown(what: str) -> str:
    """Give what may be noted of a name or URL: never a user or password in it."""
    return short_url(what)[:200] if is_url(what) else what[:200]


def require_whole_url(what: str) -> None:
    """Refuse what looks like a URL without its scheme before registries are asked."""
    if _HOSTLIKE.fullmatch(what):
        raise invalid(
            "this looks like a repository's address without its scheme",
            f"give https://{what[:200]}, or a name as search_tasks gives it",
        )


def ref_of_url(url: str, wanted: Wanted, *, anywhere: bool) -> Ref:
    """Make the ref of a URL a caller gave. Raises FORBIDDEN for one that is not fetched from here.

    ``anywhere``: it may lead to this machine and its network, as the user has allowed.
    """
    try:
        require(parse(url), Reach.ANY if anywhere else Reach.PUBLIC)
    except GitError as error:
        raise error.failure.error() from None
    return _ref(url, wanted)


def ref_of_offer(offered: Ref, wanted: Wanted, *, anywhere: bool) -> Ref:
    """Make the ref of what a registry offers: its place and version, never its credentials."""
    if offered.url is None:
        if wanted != Wanted():
            raise invalid(
                "what this name means is a folder on this machine; it has no versions",
                "leave path, branch, tag and commit out",
            )
        return Ref(path=offered.path)
    if wanted.branch is None and wanted.tag is None and wanted.commit is None:
        version = Wanted(wanted.path, offered.branch, offered.tag, offered.commit)
    else:
        version = wanted
    path = version.path if version.path is not None else offered.path
    placed = Wanted(path, version.branch, version.tag, version.commit)
    return ref_of_url(offered.url, placed, anywhere=anywhere)


def _ref(url: str, wanted: Wanted) -> Ref:
    path = (wanted.path or "").strip("/")
    moving = wanted.tag is None and wanted.commit is None
    data = {
        "url": url,
        "path": path or None,
        "branch": (wanted.branch or "main") if moving else None,
        "tag": wanted.tag,
        "commit": wanted.commit,
    }
    try:
        return Ref.read({name: value for name, value in data.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = first["loc"][0] if first["loc"] else "the ref"
        message = first.get("ctx", {}).get("message", first["msg"])
        raise invalid(f"{where} {message}", "correct it and call again") from None


def key_of(as_key: str | None, name: str | None, ref: Ref) -> str:
    """Give the key of the new entry: the one asked for, the offer's, else the repository's."""
    folder = (ref.path or "").removesuffix("/taskset.yaml").removesuffix("/task.yaml")
    last = folder.rstrip("/").rpartition("/")[2]
    if last.endswith((".yaml", ".yml")):
        last = ""
    key = as_key or name or last or repository_name(ref.url or "")
    try:
        return check_task_id(key)
    except ValueError as error:
        which = "as" if as_key else f"the key it would get, {key[:64]!r},"
        raise invalid(f"{which} {error}", 'give as, for example "monitoring/ping"') from None


def entry_data(ref: Ref, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Write an entry as it stands in a TaskSet."""
    fields = ("url", "path", "branch", "tag", "commit")
    told = {name: getattr(ref, name) for name in fields if getattr(ref, name) is not None}
    return {"ref": told, **({"overrides": dict(overrides)} if overrides else {})}


def overrides_of(given: Mapping[str, Any], tasks: Sequence[Task], entry_id: str) -> dict[str, Any]:
    """Turn ``{"params.x": value}`` into overrides, each value read by its declared type.

    Where the entry is a set, each task gets those it declares. Raises INVALID_ARGUMENT for what
    is no param, INVALID_PARAMS for one that no task declares or a value that does not fit.
    """
    values = dict(_named(given))
    _require_declared(values, tasks)
    per_task: dict[str, dict[str, Any]] = {}
    for task in tasks:
        specs = [spec for spec in task.spec.params if spec.name in values]
        if specs:
            fitting = {spec.name: values[spec.name] for spec in specs}
            per_task[task.id] = bind_params(specs, fitting, strict=True)
    if not per_task:
        return {}
    if list(per_task) == [entry_id]:
        return {"params": per_task[entry_id]}
    start = len(entry_id) + 1
    return {"entries": {i[start:]: {"params": params} for i, params in sorted(per_task.items())}}


def _named(given: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for path, value in given.items():
        name = path.removeprefix(_PARAMS)
        if name == path or not name:
            raise invalid(
                f"set can give values to params only, and {path[:64]!r} names none",
                'write {"params.NAME": value}; change anything else in the TaskSet\'s overrides',
            )
        if value is None or isinstance(value, (dict, list)):
            raise invalid(f"set: {path[:64]} must be text, a number, true or false", "")
        yield name, value


def _require_declared(values: Mapping[str, Any], tasks: Sequence[Task]) -> None:
    declared = sorted({spec.name for task in tasks for spec in task.spec.params})
    unknown = [name for name in values if name not in declared]
    if not unknown:
        return
    match = nearest(unknown[0], declared)
    close = f"; did you mean '{match}'?" if match else ""
    raise DicodeError(
        Code.INVALID_PARAMS,
        f"set: the task has no param {unknown[0][:64]!r}{close}",
        hint=f"its params: {', '.join(declared)}" if declared else "it takes no params",
        data={"declared": declared, "closest": [match] if match else []},
    )


def invalid(message: str, hint: str) -> DicodeError:
    """Make the error of an argument."""
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint or None)
