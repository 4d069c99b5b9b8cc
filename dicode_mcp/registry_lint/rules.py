"""What an entry of a registry must be, so that strangers can find and install it. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dicode_mcp.service.offers import repository_of
from dicode_mcp.sources.working.names import check_branch
from dicode_mcp.spec.giturl import url_host
from dicode_mcp.spec.taskset.catalogue import Listing
from dicode_mcp.spec.taskset.documents import Ref

_TAKEN_OVER = frozenset({"name", "description", "tags"})
_PRIVATE_NAMES = ("localhost", "local", "internal", "lan", "home", "corp", "intranet", "test")
_FORMS = "use https://HOST/PATH, ssh://git@HOST/PATH or git@HOST:PATH"
_PORT = re.compile(r":\d*$")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with an entry; ``path`` is the key inside it."""

    path: tuple[str, ...]
    message: str
    hint: str = ""
    warning: bool = False


def findings_of(listing: Listing, *, private: bool) -> Iterator[Finding]:
    """Give what is wrong with one entry; ``private``: its URL may lead to a private network."""
    yield from _words(listing)
    if listing.ref is not None:
        yield from _url(listing.ref, private=private)
        yield from _version(listing.ref)
        yield from _extras(listing.ref)
        yield from _overrides(listing)
    elif listing.folder is None:
        yield Finding(
            ("inline",),
            "is found by search, and cannot be installed: no ref can name it",
            "put it in a folder of the repository and write 'ref: {path: FOLDER}'",
            warning=True,
        )
    if not listing.on:
        yield Finding((), "is switched off, so nobody finds it", "remove it", warning=True)
    if listing.entry.hosts is not None:
        yield Finding(("hosts",), "has no effect in a registry", "remove it", warning=True)


def repeated(listings: Iterable[Listing]) -> Iterator[tuple[Listing, Finding]]:
    """Give the entries that lead to the same place as one before them."""
    seen: dict[tuple[str | None, ...], str] = {}
    for listing in listings:
        ref = listing.ref
        if ref is None or ref.url is None:
            continue
        version = ref.commit or ref.tag or ref.branch or "main"
        place = (repository_of(ref.url), (ref.path or "").strip("/."), version)
        if place in seen:
            what = f"leads to the same task as {seen[place]!r}"
            yield listing, Finding(("ref",), what, "keep one of the two", warning=True)
        seen.setdefault(place, listing.path)


def _words(listing: Listing) -> Iterator[Finding]:
    where = "overrides" if listing.ref is not None else "the task.yaml or overrides"
    if not listing.description:
        hint = f"write 'description: …' in {where}: search shows and matches it"
        yield Finding((), "has no description", hint)
    if not listing.tags:
        hint = f"write 'tags: […]' in {where}, so that it is found by other words too"
        yield Finding((), "has no tags", hint, warning=True)


def _url(ref: Ref, *, private: bool) -> Iterator[Finding]:
    where = ("ref", "url")
    url = ref.url or ""
    scheme, sign, rest = url.partition("://")
    if sign and scheme not in ("https", "ssh"):
        yield Finding(where, f"{scheme}:// is not fetched for anyone who installs it", _FORMS)
        return
    if "?" in url or "#" in url:
        yield Finding(where, "has a '?' or '#'", "give the URL that `git clone` takes")
    if scheme == "https" and sign and "@" in rest.partition("/")[0]:
        hint = "write the URL without what stands before '@'"
        yield Finding(where, "names a user, which may be a token", hint)
    if not private and _is_private(url_host(url)):
        hint = "use a public host, or lint with --allow-private for a registry of your own"
        yield Finding(where, "leads to no public host", hint)


def _is_private(host: str) -> bool:
    name = _PORT.sub("", host).strip("[]").rstrip(".")
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return "." not in name or name.rpartition(".")[2] in _PRIVATE_NAMES


def _version(ref: Ref) -> Iterator[Finding]:
    for key, name in (("branch", ref.branch), ("tag", ref.tag)):
        if name is None:
            continue
        try:
            check_branch(name)
        except ValueError as error:
            yield Finding(("ref", key), f"{error}", f"name a {key} as `git {key} --list` shows it")
    if ref.commit is not None:
        what = "is one commit, so whoever installs it is never offered an update"
        yield Finding(("ref", "commit"), what, "name a branch or a tag", warning=True)
    if ref.branch is None and ref.tag is None and ref.commit is None:
        what = "names no branch; main is taken"
        yield Finding(("ref",), what, "write 'branch: main'", warning=True)


def _extras(ref: Ref) -> Iterator[Finding]:
    if ref.auth is not None:
        what = "names credentials, which nobody who installs it would be asked for"
        yield Finding(("ref", "auth"), what, "remove it; a registry names public repositories")
    if ref.dev_ref is not None:
        what = "has no effect for those who install it"
        yield Finding(("ref", "dev_ref"), what, "remove it", warning=True)


def _overrides(listing: Listing) -> Iterator[Finding]:
    own: Mapping[str, object] = listing.entry.overrides.data
    extra = sorted(key for key in own if key not in _TAKEN_OVER)
    if extra or listing.entry.overrides.entries:
        named = ", ".join([*extra, *(["entries"] if listing.entry.overrides.entries else [])])
        what = f"has {named}, which installing does not take over"
        hint = "keep name, description and tags; the rest belongs to the task's own repository"
        yield Finding(("overrides",), what, hint, warning=True)
