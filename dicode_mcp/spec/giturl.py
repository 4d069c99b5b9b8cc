"""What may stand where a git URL is wanted. Says nothing about who may reach which host."""

from __future__ import annotations

from dicode_mcp.spec.base import fail

_FORMS = "use https://, ssh:// or git@host:path"
SCHEMES = ("https", "http", "ssh", "git", "file")


def check_git_url(text: str) -> str:
    """Give ``text`` when it can be a repository's URL; never shows a URL that is refused."""
    if "::" in text.partition("[")[0]:
        fail("names a transport helper, which would run a program", _FORMS)
    if text.startswith("-") or any(c.isspace() or not c.isprintable() for c in text):
        fail("is not a git URL", _FORMS)
    scheme, sign, rest = text.partition("://")
    if not sign:
        _check_short(text)
        return text
    if scheme not in SCHEMES:
        fail("is not a git URL", _FORMS)
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        fail("holds a password", "use auth.token_env, which names a variable with the token")
    if not rest.strip("/"):
        fail("names no repository", _FORMS)
    return text


def _check_short(text: str) -> None:
    """Check the form ``user@host:path``."""
    host, colon, path = text.partition(":")
    if not colon or "/" in host:
        fail("is not a git URL", f"{_FORMS}; a folder is a path (in dicode.yaml, type: local)")
    if not path or not host.rpartition("@")[2]:
        fail("names no repository", _FORMS)


def repository_name(url: str) -> str:
    """Give the last part of a URL, without ``.git``."""
    return url.rstrip("/").replace(":", "/").rpartition("/")[2].removesuffix(".git")


def short_url(url: str) -> str:
    """Give a URL as people write it, without scheme, user and ``.git``: for messages."""
    rest = url.partition("://")[2] or url
    host, slash, path = rest.partition("/")
    return (host.rpartition("@")[2] + slash + path).rstrip("/").removesuffix(".git")


def url_host(url: str) -> str:
    """Give the host (with its port) of a URL, in lower case; empty for a file."""
    _, sign, rest = url.partition("://")
    authority = rest.partition("/")[0] if sign else url.partition(":")[0]
    return authority.rpartition("@")[2].lower()
