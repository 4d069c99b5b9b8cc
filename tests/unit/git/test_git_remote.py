"""Which URLs and addresses may be fetched from."""

from __future__ import annotations

import pytest

from dicode_mcp.protocols import GitAuth, GitRef
from dicode_mcp.sources.git import wire
from dicode_mcp.sources.git.access import access_to
from dicode_mcp.sources.git.failures import GitError, Reason
from dicode_mcp.sources.git.jobs import Access
from dicode_mcp.sources.git.remote import Reach, parse, require, require_address


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path"),
    [
        ("https://example.org/a/b.git", "https", "example.org", None, "/a/b.git"),
        ("https://Example.org:8443/a", "https", "example.org", 8443, "/a"),
        ("ssh://git@example.org:22/a.git", "ssh", "example.org", 22, "/a.git"),
        ("git@example.org:a/b.git", "ssh", "example.org", None, "a/b.git"),
        ("example.org:a", "ssh", "example.org", None, "a"),
        ("https://[2001:db8::1]/a", "https", "2001:db8::1", None, "/a"),
        ("file:///srv/a%20b.git", "file", "", None, "/srv/a b.git"),
        ("http://example.org/a", "http", "example.org", None, "/a"),
    ],
)
def test_a_git_url_is_taken_apart(
    url: str, scheme: str, host: str, port: int | None, path: str
) -> None:
    remote = parse(url)
    assert (remote.scheme, remote.host, remote.port, remote.path) == (scheme, host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-oProxyCommand=evil",
        "--upload-pack=evil",
        "ext::sh -c evil",
        "ext::sh%20-c%20evil",
        "file::/etc",
        "git::https://example.org/a",
        "fd::17",
        "git://example.org/a",
        "ftp://example.org/a",
        "javascript:alert(1)//x y",
        "https://",
        "https://example.org",
        "https://example.org/",
        "https://user:hunter2@example.org/a",
        "https://example.org/a?x=1",
        "https://example.org/a#x",
        "https://exa mple.org/a",
        "https://example.org/a\nb",
        "https://example.org\\@evil.org/a",
        "https://example.org:99999/a",
        "https://-evil/a",
        "ssh://-oProxyCommand=evil/a",
        "ssh://-evil@example.org/a",
        "ssh://example.org/-a",
        "-evil@example.org:a",
        "git@-evil:a",
        "git@example.org:-a",
        "git@example.org:",
        "git@example.org::a",
        "/srv/repo.git",
        "../repo.git",
        "repo",
        "file://host/srv",
        "https://example.org/" + "a" * 3000,
        "https://ex\u0430mple.org/a",
    ],
)
def test_what_is_no_git_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(GitError) as raised:
        parse(url)
    assert raised.value.failure.reason is Reason.NOT_TRUSTED
    assert "hunter2" not in str(raised.value.failure)
    assert "evil" not in raised.value.failure.message


@pytest.mark.parametrize(
    ("url", "least"),
    [
        ("https://example.org/a", Reach.PUBLIC),
        ("git@example.org:a", Reach.PUBLIC),
        ("http://example.org/a", Reach.ANY),
        ("file:///srv/a", Reach.ANY),
    ],
)
def test_plain_http_and_files_want_the_users_own_word(url: str, least: Reach) -> None:
    order = [Reach.PUBLIC, Reach.NETWORK, Reach.ANY]
    for reach in order:
        if order.index(reach) >= order.index(least):
            require(parse(url), reach)
        else:
            with pytest.raises(GitError, match="may not be fetched"):
                require(parse(url), reach)


OWN = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "::1",
    "::",
    "169.254.169.254",
    "fe80::1",
    "::ffff:127.0.0.1",
]
PRIVATE = [
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "100.64.0.1",
    "fd00::1",
    "64:ff9b::a00:1",
    "::ffff:10.0.0.1",
    "2002:a00:1::1",
    "224.0.0.1",
    "192.0.2.1",
]
PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"]


@pytest.mark.parametrize("address", [*OWN, *PRIVATE, *PUBLIC])
def test_addresses_are_judged_by_who_named_the_url(address: str) -> None:
    remote = parse("https://example.org/a")
    allowed = {
        Reach.PUBLIC: address in PUBLIC,
        Reach.NETWORK: address not in OWN,
        Reach.ANY: True,
    }
    for reach, may in allowed.items():
        if may:
            require_address(remote, address, reach)
        else:
            with pytest.raises(GitError, match="leads to"):
                require_address(remote, address, reach)


def test_every_address_of_a_name_is_judged_not_only_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "resolve", lambda host, port: ["93.184.216.34", "10.0.0.1"])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with pytest.raises(GitError, match="private address"):
        wire.addresses(parse("https://example.org/a"), 443, Reach.PUBLIC)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "localhost", "127.1"])
def test_spellings_of_this_machine_are_seen_through(host: str) -> None:
    with pytest.raises(GitError) as raised:
        wire.addresses(parse(f"https://{host}/a"), 443, Reach.PUBLIC)
    assert raised.value.failure.reason in (Reason.NOT_TRUSTED, Reason.UNREACHABLE)


def test_a_ref_of_a_stranger_may_not_name_credentials() -> None:
    for auth in (GitAuth(token_env="PATH"), GitAuth(ssh_key="/etc/hostname")):
        ref = GitRef("https://example.org/a", auth=auth)
        with pytest.raises(GitError, match="names credentials"):
            access_to(ref, {"PATH": "secret"}, allow_local=False)


def test_a_proxy_of_the_environment_is_used_except_where_it_is_not() -> None:
    environ = {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "internal.example, .corp"}
    used = {
        url: access_to(GitRef(url, trusted=True), environ, allow_local=False).proxy
        for url in ("https://example.org/a", "https://x.corp/a", "https://internal.example/a")
    }
    assert list(used.values()) == ["http://proxy:3128", None, None]


def test_ssh_asks_nobody_and_knows_its_hosts() -> None:
    options = wire.ssh_options(
        parse("ssh://git@example.org:2222/a"),
        Access("", Reach.ANY, ssh_key="/k", known_hosts="/h"),
    )
    for wanted in (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        'IdentityFile="/k"',
        "IdentitiesOnly=yes",
        "Port=2222",
        "User=git",
    ):
        assert wanted in options


def test_ssh_to_a_strangers_host_reads_none_of_the_users_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "resolve", lambda host, port: ["93.184.216.34"])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    options = wire.ssh_options(parse("git@example.org:a"), Access("", Reach.PUBLIC))
    assert options[options.index("-F") + 1] == "none"
    assert "HostName=93.184.216.34" in options
    assert "HostKeyAlias=example.org" in options
    assert "IdentityAgent=none" in options
