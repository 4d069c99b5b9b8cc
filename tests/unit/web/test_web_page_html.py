"""Our elements stand first in a page's head, however its author wrote it."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from dicode_mcp.web.hook_frame import PageKeys, policy
from dicode_mcp.web.hook_pages import with_elements
from dicode_mcp.web.page_html import insert_into_head, page_elements

WHERE = {
    "": "@",
    "text only": "@text only",
    "  \n text": "@  \n text",
    "<p>no head": "@<p>no head",
    "<title>x</title>": "@<title>x</title>",
    "<!doctype html><html><head><title>": "<!doctype html><html><head>@<title>",
    "<!DOCTYPE HTML>\n<HTML X=y>\n<HEAD>\n<B>": "<!DOCTYPE HTML>\n<HTML X=y>\n<HEAD>@\n<B>",
    "<html><body>": "<html>@<body>",
    "<html lang='a>b' data-x=\"<head>\"><head>": "<html lang='a>b' data-x=\"<head>\"><head>@",
    '<head data-x = "a > b">y': '<head data-x = "a > b">@y',
    "<head\n>x": "<head\n>@x",
    "<head/>x": "<head/>@x",
    "<header>x": "@<header>x",
    "<heading><head>": "@<heading><head>",
    "<!--<head>--><html><!-- > <a> --><head>x": "<!--<head>--><html><!-- > <a> --><head>@x",
    "<!--><head>x": "<!--><head>@x",
    "<!---><head>x": "<!---><head>@x",
    "<!-- a --!><head>x": "<!-- a --!><head>@x",
    "<!-- never ends <head>": "@<!-- never ends <head>",
    "<html": "@<html",
    "<html foo": "@<html foo",
    '<html a="<head>': '@<html a="<head>',
    "<?xml version='1.0'?><html><head>x": "<?xml version='1.0'?><html><head>@x",
    "\ufeff<!doctype html><head>x": "\ufeff<!doctype html><head>@x",
    "<script>'<head>'</script><head>": "@<script>'<head>'</script><head>",
    "</html><head>": "@</html><head>",
    "<!doctype html PUBLIC \"-//x>\"><head>": '<!doctype html PUBLIC "-//x>@"><head>',
    "< head><head>": "@< head><head>",
}  # fmt: skip


@pytest.mark.parametrize(("page", "expected"), WHERE.items())
def test_elements_are_put_where_a_browser_begins_the_head(page: str, expected: str) -> None:
    assert insert_into_head(page, "@") == expected


class _Attributes(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_no_id_or_path_can_break_out_of_its_attribute() -> None:
    evil = "\"'><script>alert(1)</script>&quot;"
    seen = _Attributes(page_elements(evil, "/hooks/" + evil, "key", "/dicode.js")).seen
    assert seen == [
        ("base", {"href": f"/hooks/{evil}/"}),
        ("meta", {"name": "dicode-task", "content": evil}),
        ("meta", {"name": "dicode-hook", "content": f"/hooks/{evil}"}),
        ("meta", {"name": "dicode-page", "content": "key"}),
        ("script", {"src": "/dicode.js"}),
    ]


def test_a_page_in_another_charset_keeps_its_bytes() -> None:
    latin = "<meta charset=latin1><p>\xe9".encode("latin-1")
    assert with_elements(latin, "@") == (b"@" + latin, "")
    assert with_elements("<head>é".encode(), "@") == ("<head>@é".encode(), "; charset=utf-8")
    assert with_elements("<head>é".encode("utf-16"), "@") == (
        "<head>@é".encode(),
        "; charset=utf-8",
    )


def test_a_policy_names_the_webhook_by_host_or_where_that_cannot_be_by_self() -> None:
    assert "connect-src http://h:1/hooks/a http://h:1/hooks/a/;" in policy(
        "http", "h:1", "/hooks/a"
    )
    by_number = policy("http", "[::1]:8080", "/hooks/a")
    assert "connect-src 'self' 'self';" in by_number
    assert "[" not in by_number


def test_a_page_key_is_of_one_task_at_one_path_of_one_servers_life() -> None:
    keys = PageKeys()
    key = keys.of("a", "/hooks/a")
    assert len(key) == 32
    assert keys.fits("a", "/hooks/a", key)
    for task, path, given in (
        ("b", "/hooks/a", key),
        ("a", "/hooks/b", key),
        ("a", "/hooks/a", ""),
        ("a", "/hooks/a", key[:-1]),
        ("a", "/hooks/a", "ü"),
    ):
        assert not keys.fits(task, path, given)
    assert not PageKeys().fits("a", "/hooks/a", key)
