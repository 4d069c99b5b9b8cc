"""Pages of webhook tasks in a real browser: what they can do, and what they must not reach."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from chromium import Browser, browsing
from pagetasks import PageServer, serving_pages

import dicode_agents

pytestmark = pytest.mark.slow

FORM = """<!doctype html><title>Greeter</title><link rel=stylesheet href=style.css>
<script type="module" src="lib/module.mjs"></script>
<form data-dicode data-output="#out" data-log="#log">
  <input name="who" value="Ann"><input name="tag" value="a"><input name="tag" value="b">
  <button name="go" value="yes">Go</button>
</form>
<pre id="log"></pre><div id="out"></div>"""

GREETER = """
print("\\x1b[31mred\\x1b[0m <b>not bold</b>")
log.warn("a warning for the owner")
log.info("second line")
if params.get("who") == "html":
    output.html("<h1 id=made>Hi</h1><script>document.title = 'ran'</script>")
if params.get("who") == "picture":
    output.image("image/png", "iVBORw0KGgo=")
if params.get("who") == "nobody":
    raise ValueError("no such person")
result = {"hello": params.get("who"), "input": input, "headers": sorted(request["headers"])}
"""

HOSTILE = """<!doctype html><title>hostile</title><body><script>
const report = {};
const attempt = async (name, step) => {
  try { report[name] = "REACHED " + String(await step()).slice(0, 80); }
  catch (error) { report[name] = "refused " + error.name; }
};
const timed = (step) => new Promise((done, fail) => {
  step(done, fail); setTimeout(() => fail(new Error("nothing")), 3000);
});
const read = (url, init) => async () => (await fetch(url, init)).text();
const loaded = (make) => () => timed((done, fail) => {
  const element = make(); element.onload = () => done("loaded"); element.onerror = fail;
  document.body.append(element);
});
(async () => {
  const init = { method: "POST", body: "{}", headers: { "Content-Type": "application/json" } };
  for (const path of ["/mcp", "/sse", "/api/sources", "/api/events", "/api/tasks/trigger",
                      "/hooks/other", "/hooks/other/app.js", "/runs", "/"]) {
    await attempt("get " + path, read(path));
    await attempt("post " + path, read(path, init));
    await attempt("no-cors " + path, read(path, { mode: "no-cors", method: "POST", body: "x" }));
    await attempt("key " + path, () => dicode.fetch(path, init).then((answer) => answer.text()));
    await attempt("with cookies " + path, read(path, { credentials: "include" }));
  }
  await attempt("plain fetch", () => fetch(dicode.task.hookPath, init).then((a) => {
    if (!a.ok) throw { name: "status " + a.status }; }));
  await attempt("cookie", () => document.cookie);
  await attempt("set cookie", () => { document.cookie = "a=1"; });
  await attempt("localStorage", () => localStorage.length);
  await attempt("sessionStorage", () => sessionStorage.length);
  await attempt("indexedDB", () => timed((done, fail) => {
    const open = indexedDB.open("x"); open.onsuccess = done; open.onerror = fail; }));
  await attempt("caches", () => caches.keys());
  await attempt("service worker", () => navigator.serviceWorker.register("/dicode.js"));
  await attempt("eval", () => eval("1 + 1"));
  await attempt("opener", () => { if (!window.opener) throw { name: "none" }; });
  await attempt("event source", () => timed((done, fail) => {
    const source = new EventSource("/api/events"); source.onopen = done; source.onerror = fail; }));
  await attempt("web socket", () => timed((done, fail) => {
    const socket = new WebSocket("ws://" + location.host + "/mcp");
    socket.onopen = done; socket.onerror = fail; }));
  await attempt("image", loaded(() => Object.assign(new Image(), { src: "/icon.svg" })));
  await attempt("script", loaded(() => Object.assign(document.createElement("script"),
    { src: "/hooks/other/app.js" })));
  await attempt("style", loaded(() => Object.assign(document.createElement("link"),
    { rel: "stylesheet", href: "/style.css" })));
  await attempt("frame", () => timed((done, fail) => {
    addEventListener("message", done);
    const frame = document.createElement("iframe"); frame.src = "/hooks/framed";
    document.body.append(frame); }));
  await attempt("base", () => {
    document.head.prepend(Object.assign(document.createElement("base"), { href: "/api/" }));
    if (document.baseURI.endsWith("/api/")) return "moved"; throw { name: "kept" }; });
  await attempt("popup", () => {
    const opened = open("/"); if (!opened) throw { name: "blocked" };
    return timed((done, fail) => setTimeout(() => {
      try { done(opened.document.body.innerHTML); } catch (error) { fail(error); } }, 500)); });
  navigator.sendBeacon("/hooks/other", "{}");
  for (const action of ["/hooks/other", "/api/tasks/trigger", "/mcp"]) {
    const form = Object.assign(document.createElement("form"), { action, method: "POST" });
    document.body.append(form); form.submit();
  }
  setTimeout(() => { window.report = report; document.title = "done"; }, 500);
})();
</script>"""

EXAMPLE = Path(dicode_agents.__file__).parent / "examples" / "page-with-form"

TASKS: dict[str, dict[str, str]] = {
    "greeter": {
        "task.yaml": "name: Greeter\nruntime: python\ntrigger: {webhook: /hooks/greeter}\n"
        "params: {who: {default: world}}\n",
        "task.py": GREETER,
        "index.html": FORM,
        "style.css": "form { color: rgb(1, 2, 3) }",
        "lib/module.mjs": "window.fromModule = 'ran';",
        "data.json": '{"own": true}',
    },
    "hostile": {
        "task.yaml": "name: Hostile\nruntime: python\ntrigger: {webhook: /hooks/hostile}\n",
        "task.py": "result = 1\n",
        "index.html": HOSTILE,
    },
    "other": {
        "task.yaml": "name: Other\nruntime: python\n"
        "trigger: {webhook: /hooks/other, methods: [GET, POST]}\n",
        "task.py": "result = 'SECRET OF OTHER'\n",
        "index.html": "<p>other",
        "app.js": "window.other = 'ran';",
    },
    "framed": {
        "task.yaml": "name: Framed\nruntime: python\ntrigger: {webhook: /hooks/framed}\n",
        "task.py": "result = 1\n",
        "index.html": "<script>parent.postMessage('here', '*')</script>",
    },
    "page-with-form": {
        str(file.relative_to(EXAMPLE)): file.read_text()
        for file in EXAMPLE.rglob("*.*")
        if file.suffix != ".pyc"
    },
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    with serving_pages(tmp_path, TASKS) as made:
        yield made


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with browsing(tmp_path / "profile") as made:
        yield made


def test_a_form_runs_its_task_and_shows_log_and_result(
    browser: Browser, server: PageServer
) -> None:
    browser.open(f"{server.url}/hooks/greeter")
    assert browser.complaints() == []
    assert browser.ask("getComputedStyle(document.forms[0]).color") == "rgb(1, 2, 3)"
    browser.wait_for("window.fromModule === 'ran'")
    assert browser.ask("[dicode.task.id, dicode.task.hookPath]") == ["greeter", "/hooks/greeter"]
    browser.ask("document.querySelector('button').click()")
    assert browser.ask("document.querySelector('button').disabled") is True
    browser.wait_for("document.querySelector('#out').dataset.status === 'success'")
    browser.wait_for("document.querySelector('button').disabled === false")
    made = json.loads(browser.ask("document.querySelector('#out').textContent"))
    assert made["hello"] == "Ann"
    assert made["input"] == {"who": "Ann", "tag": ["a", "b"], "go": "yes"}
    assert "x-dicode-page" not in made["headers"]
    lines = browser.ask("document.querySelector('#log').textContent").splitlines()
    assert lines == ["red <b>not bold</b>", "second line"]
    assert browser.ask("document.querySelector('#log span').style.color") == "rgb(204, 51, 51)"
    assert browser.ask("document.querySelector('#log b')") is None


def test_html_is_shown_where_its_scripts_do_not_run_and_failures_as_text(
    browser: Browser, server: PageServer
) -> None:
    browser.open(f"{server.url}/hooks/greeter")
    _submit(browser, "html", "success")
    browser.wait_for("document.querySelector('#out iframe') !== null")
    assert browser.ask("document.querySelector('#out iframe').getAttribute('sandbox')") == ""
    assert browser.ask("document.title") == "Greeter"
    _submit(browser, "picture", "success")
    assert browser.ask("document.querySelector('#out img').src").startswith("data:image/png;")
    _submit(browser, "nobody", "failure")
    assert "no such person" in browser.ask("document.querySelector('#out').textContent")


def test_a_page_starts_follows_and_reads_its_own_runs(browser: Browser, server: PageServer) -> None:
    browser.open(f"{server.url}/hooks/greeter")
    browser.ask(
        """window.told = []; window.ends = [];
        const options = {onEvent: (e) => told.push(e.type), onFinish: (r) => ends.push(r)};
        dicode.execute({who: "Bo"}, options)
          .then((r) => dicode.result(r.runId)).then((again) => { window.again = again; })"""
    )
    browser.wait_for("window.again !== undefined")
    end, again = browser.ask("ends[0]"), browser.ask("window.again")
    assert end == again
    assert (end["status"], end["returnValue"]["hello"]) == ("success", "Bo")
    assert (end["contentType"], json.loads(end["body"])) == ("application/json", end["returnValue"])
    told = browser.ask("told")
    assert told.count("log") == 2
    assert told[0] == "status"
    browser.ask(
        """dicode.execute({who: "nobody"}, {onError: (e) => { window.failed = e.result.status; }});
        dicode.fetch("data.json").then((a) => a.json()).then((own) => { window.own = own; });
        dicode.result("0".repeat(26)).catch((e) => { window.missing = [e.code, e.httpStatus]; })"""
    )
    browser.wait_for("window.failed && window.own && window.missing")
    assert browser.ask("[failed, own, missing]") == [
        "failure",
        {"own": True},
        ["run_not_found", 404],
    ]


def test_the_bundled_example_shows_its_log_while_it_runs(
    browser: Browser, server: PageServer
) -> None:
    browser.open(f"{server.url}/hooks/page-with-form")
    assert browser.complaints() == []
    browser.ask("document.forms[0].seconds.value = 2; document.querySelector('button').click()")
    browser.wait_for("document.querySelector('#log').textContent.startsWith('2 …')")
    assert browser.ask("document.querySelector('#progress').hidden") is False
    assert browser.ask("document.querySelector('#result').textContent") == ""
    browser.wait_for("document.querySelector('#result').dataset.status === 'success'")
    assert "Hello, World!" in browser.ask("document.querySelector('#result').textContent")
    assert browser.ask("document.querySelector('#progress').hidden") is True


def test_text_with_terminal_colours_becomes_escaped_html(
    browser: Browser, server: PageServer
) -> None:
    browser.open(f"{server.url}/hooks/greeter")
    for text, html in ANSI.items():
        assert browser.ask(f"dicode.ansiToHtml({json.dumps(text)})") == html, text


ANSI = {
    "plain": "plain",
    "<script>&\"'": "&#60;script&#62;&#38;&#34;&#39;",
    "\x1b[31mred\x1b[0m.": '<span style="color:#c33">red</span>.',
    "\x1b[1;42mok\x1b[49mon": '<span style="font-weight:bold;background-color:#283">ok</span>'
    '<span style="font-weight:bold">on</span>',
    "\x1b[96mx\x1b[39my": '<span style="color:#088">x</span>y',
    "\x1b[38;5;208mx\x1b[m": "x",
    "\x1b[2Jgone\x1b]8;;http://x\x07link\x1b]8;;\x07": "gonelink",
    '\x1b[31m"><img src=x onerror=1>': '<span style="color:#c33">&#34;&#62;&#60;img src=x onerror=1'
    "&#62;</span>",
}


def test_a_hostile_page_reaches_nothing_but_its_own_webhook(
    browser: Browser, server: PageServer
) -> None:
    browser.open(f"{server.url}/hooks/hostile")
    browser.wait_for("document.title === 'done'")
    report: dict[str, str] = browser.ask("window.report")
    assert len(report) >= 60
    assert [f"{name}: {end}" for name, end in report.items() if "REACHED" in end] == []
    assert report["plain fetch"] == "refused status 403"
    assert server.runs("other") == []
    assert server.runs("hostile") == []


class _Evil(BaseHTTPRequestHandler):
    """Another site: a page that hides its origin in a sandboxed frame, as any site may."""

    inner = ""

    def do_GET(self) -> None:
        frame = f'<iframe sandbox="allow-scripts" srcdoc="{self.inner}"></iframe>'
        body = f"<!doctype html><title>evil</title>{frame}".encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def evil_url(server: PageServer) -> Iterator[str]:
    script = f"""
    const told = [], url = '{server.url}/hooks/greeter';
    const init = {{method: 'POST', body: '{{}}', headers: {{'Content-Type': 'text/plain'}}}};
    const tell = (name) => (end) => told.push(name + ' ' + (end.status ?? end.name));
    (async () => {{
      await fetch(url, init).then(tell('simple'), tell('simple'));
      await fetch(url, {{...init, mode: 'no-cors'}}).then(tell('no-cors'), tell('no-cors'));
      const guessed = {{...init, headers: {{'X-Dicode-Page': '0'}}}};
      await fetch(url, guessed).then(tell('key'), tell('key'));
      await fetch(url + '/data.json').then(tell('data'), tell('data'));
      await fetch(url).then(tell('page'), tell('page'));
      await fetch('{server.url}/hooks/other?x=1').then(tell('get'), tell('get'));
      await fetch('{server.url}/api/sources').then(tell('api'), tell('api'));
      for (const at of ['/hooks/other?img', '/api/sources', '/hooks/greeter/data.json'])
        new Image().src = '{server.url}' + at;
      parent.postMessage(told, '*');
    }})();
    """.replace('"', "&quot;")
    handler = type("Handler", (_Evil,), {"inner": f"<script>{script}</script>"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as evil:
        thread = threading.Thread(target=evil.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{evil.server_port}/"
        finally:
            evil.shutdown()
            thread.join()


def test_another_sites_page_that_hides_its_origin_starts_and_reads_nothing(
    browser: Browser, server: PageServer, evil_url: str
) -> None:
    browser.send(
        "Page.addScriptToEvaluateOnNewDocument",
        source="addEventListener('message', (e) => { window.told = e.data; })",
    )
    browser.open(evil_url)
    browser.wait_for("window.told !== undefined")
    told = browser.ask("window.told")
    # What it may read are refusals; what is opaque to it was refused as well.
    ends = {line.partition(" ")[0]: line.partition(" ")[2] for line in told}
    assert ends["api"] == "TypeError"
    assert {ends[name] for name in ("simple", "key", "data", "page", "get")} == {"403"}
    assert server.runs("greeter") == []
    assert server.runs("other") == []


def _submit(browser: Browser, who: str, status: str) -> None:
    browser.ask(
        f"""document.querySelector('#out').removeAttribute('data-status');
        document.forms[0].who.value = {json.dumps(who)};
        document.querySelector('button').click()"""
    )
    browser.wait_for(f"document.querySelector('#out').dataset.status === {json.dumps(status)}")
    browser.wait_for("document.querySelector('button').disabled === false")
