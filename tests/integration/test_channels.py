"""The bundled tasks that tell people, against servers that listen as the real services do."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import hashlib
import hmac
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakeservices import Answer, HttpService, MailService
from liveserver import Live, Serve

import dicode_agents
from dicode_mcp.config.model import BundledConfig, NotificationsConfig
from dicode_mcp.testing.waiting import DEADLINE_S, until

NOTIFY = Path(dicode_agents.__file__).parent / "notify"
OVER_HTTP = ("ntfy", "slack", "discord", "telegram", "webhook")
HERE = ["127.0.0.1", "localhost"]
URL = "https://dicode.example/runs/01abc"
NASTY = "<!channel> @everyone <@123> & *bold* _x_ `code` <https://evil.example|click> \u202e"


def overriding(**overrides: Mapping[str, Any]) -> BundledConfig:
    """Override bundled tasks as dicode.yaml does: no second attempt, and the services are here."""
    quick = {"retry": {"attempts": 1}, "net": HERE}
    return BundledConfig(overrides={name: {**quick, **o} for name, o in overrides.items()})


def environ(**variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nowhere", **variables}


async def send(live: Live, channel: str, **params: Any) -> dict[str, Any]:
    return await live.run(f"bundled/{channel}", params={"text": "backup failed", **params})


def test_the_file_that_channels_share_is_the_same_in_each() -> None:
    texts = {(NOTIFY / name / "channel.py").read_bytes() for name in OVER_HTTP}
    assert len(texts) == 1


async def test_ntfy_gets_topic_text_priority_and_token(serve: Serve) -> None:
    async with HttpService().listening() as ntfy:
        bundled = overriding(ntfy={"params": {"topic": "ops-x7", "server": ntfy.url}})
        async with serve(bundled=bundled, environ=environ(NTFY_TOKEN="tk_secret")) as live:
            run = await send(live, "ntfy", event="first_failure", url=URL)
            assert (run["status"], run["return_value"]) == ("success", {"sent": 1}), run
            await send(live, "ntfy", text="ü" * 5000)
        first, long = ntfy.got
        assert first.json == {
            "topic": "ops-x7",
            "message": f"🔴 backup failed\n{URL}",
            "priority": 4,
            "click": URL,
        }
        assert first.headers["authorization"] == "Bearer tk_secret"
        size = len(long.json["message"].encode())
        assert 4000 < size <= 4096


async def test_slack_shows_whatever_the_text_holds_as_text(serve: Serve) -> None:
    async with HttpService().listening() as slack:
        url = f"{slack.url}/services/T0/B0/secretpart"
        async with serve(bundled=overriding(slack={}), environ=environ(SLACK_WEBHOOK_URL=url)) as x:
            run = await send(x, "slack", text=NASTY, event="recovery")
            assert run["status"] == "success", run
            await send(x, "slack", text="&" * 9000)
        first, long = slack.got
        assert first.path == "/services/T0/B0/secretpart"
        assert "<" not in first.json["text"]
        assert first.json["text"].startswith("🟢 &lt;!channel&gt; @everyone &lt;@123&gt; &amp; ")
        assert first.json["mrkdwn"] is False
        assert len(long.json["text"]) <= 4000


async def test_discord_calls_nobody(serve: Serve) -> None:
    async with HttpService([Answer(204, body=b"")]).listening() as discord:
        url = f"{discord.url}/api/webhooks/1/secretpart"
        variables = environ(DISCORD_WEBHOOK_URL=url)
        async with serve(bundled=overriding(discord={}), environ=variables) as live:
            run = await send(live, "discord", text=NASTY, url=URL)
            assert run["status"] == "success", run
            await send(live, "discord", text="_" * 5000)
        first, long = discord.got
        assert first.json["allowed_mentions"] == {"parse": []}
        assert "\\@everyone" in first.json["content"]
        assert "\\*bold\\*" in first.json["content"]
        assert first.json["content"].endswith(f"\n{URL}")
        assert len(long.json["content"]) <= 2000


async def test_telegram_gets_plain_text_for_its_chat(serve: Serve) -> None:
    async with HttpService([Answer(body=b'{"ok": true}')]).listening() as telegram:
        bundled = overriding(telegram={"params": {"chat_id": "-100123", "server": telegram.url}})
        variables = environ(TELEGRAM_BOT_TOKEN="123:secret-token")
        async with serve(bundled=bundled, environ=variables) as live:
            run = await send(live, "telegram", text=NASTY)
            assert run["status"] == "success", run
            await send(live, "telegram", text="😀" * 5000)
        first, long = telegram.got
        assert first.path == "/bot123:secret-token/sendMessage"
        assert (first.json["chat_id"], first.json["text"]) == ("-100123", NASTY)
        assert "parse_mode" not in first.json
        assert len(long.json["text"].encode("utf-16-le")) // 2 <= 4096


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_" + base64.b64encode(b"0123456789abcdef").decode(), b"0123456789abcdef"),
        ("plain text", b"plain text"),
    ],
)
async def test_a_webhook_gets_the_whole_notice_signed(
    serve: Serve, secret: str, key: bytes
) -> None:
    async with HttpService().listening() as hook:
        variables = environ(WEBHOOK_URL=f"{hook.url}/in", WEBHOOK_SECRET=secret)
        notifications = NotificationsConfig(task="bundled/webhook")
        settings: dict[str, Any] = {"notifications": notifications}
        settings["bundled"] = overriding(webhook={})
        async with serve(environ=variables, **settings) as live:
            live.write("backup", "raise ValueError('disk full')\n")
            await live.sync()
            run = await live.run("backup")
            await until(lambda: bool(hook.got))
        (got,) = hook.got
        assert got.json["event"] == "first_failure"
        assert got.json["task"] == {"id": "backup", "name": "backup"}
        assert got.json["run"]["run_id"] == run["run_id"]
        assert got.json["error"]["message"] == "ValueError: disk full"
        signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode()
        mac = hmac.digest(key, signed + got.body, hashlib.sha256)
        assert got.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()


async def test_a_webhook_without_a_secret_is_not_signed(serve: Serve) -> None:
    async with HttpService().listening() as hook:
        bundled, variables = overriding(webhook={}), environ(WEBHOOK_URL=hook.url)
        async with serve(bundled=bundled, environ=variables) as live:
            run = await send(live, "webhook", event="success")
            assert run["status"] == "success", run
        assert hook.got[0].json == {"text": "backup failed", "event": "success"}
        assert "webhook-signature" not in hook.got[0].headers


# ── What goes wrong ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(404, body=b"no_service"), "Slack answered 404: no_service"),
        (Answer(500, body=b""), "Slack answered 500"),
        (Answer(302, {"Location": "http://127.0.0.1:1/stolen"}, b""), "Slack answered 302"),
        (Answer(429, {"Retry-After": "300"}, b""), "429, to be tried again in 300 s"),
        (Answer(403, body=b"bad secretpart token"), "Slack answered 403: bad secretpart token"),
    ],
)
async def test_a_refusal_is_told_without_the_address(
    serve: Serve, answer: Answer, told: str
) -> None:
    async with HttpService([answer]).listening() as slack:
        url = f"{slack.url}/services/secretpart"
        async with serve(bundled=overriding(slack={}), environ=environ(SLACK_WEBHOOK_URL=url)) as x:
            run = await send(x, "slack")
            assert run["status"] == "failure"
            assert told in run["error"]["message"], run
            assert "/services" not in str(run)
            assert len(slack.got) == 1


async def test_a_service_that_asks_for_a_moment_is_asked_again(serve: Serve) -> None:
    busy = Answer(429, {"Retry-After": "0"}, b"slow down")
    async with HttpService([busy, Answer()]).listening() as slack:
        variables = environ(SLACK_WEBHOOK_URL=slack.url)
        async with serve(bundled=overriding(slack={}), environ=variables) as live:
            assert (await send(live, "slack"))["status"] == "success"
        assert len(slack.got) == 2


async def test_what_will_not_pass_is_not_tried_again_and_what_may_is(serve: Serve) -> None:
    retry = {"retry": {"attempts": 2, "backoff": "0s"}, "net": HERE}
    answers = [Answer(404), Answer(500), Answer()]
    async with HttpService(answers).listening() as slack:
        config = BundledConfig(overrides={"slack": retry})
        async with serve(bundled=config, environ=environ(SLACK_WEBHOOK_URL=slack.url)) as live:
            run = await send(live, "slack")
            assert (run["status"], run["reason"]) == ("failure", "no_retry")
            assert len((await live.call("get_runs", task="bundled/slack"))["runs"]) == 1
            await send(live, "slack")
            await until(lambda: len(slack.got) == 3)


async def test_a_service_that_is_not_there_is_told_by_its_host_alone(serve: Serve) -> None:
    variables = environ(SLACK_WEBHOOK_URL="http://127.0.0.1:1/services/secretpart")
    async with serve(bundled=overriding(slack={}), environ=variables) as live:
        run = await send(live, "slack")
        message = run["error"]["message"]
        # Through the gate a connection that fails outside is taken and then reset.
        assert re.search("Slack: 127.0.0.1 cannot be reached: Connection (refused|reset)", message)
        assert "secretpart" not in str(run)


@pytest.mark.parametrize("url", ["ftp://x/secretpart", "not an address secretpart", "http://[", ""])
async def test_a_wrong_address_is_not_shown(serve: Serve, url: str) -> None:
    async with serve(bundled=overriding(slack={}), environ=environ(SLACK_WEBHOOK_URL=url)) as live:
        run = await send(live, "slack")
        assert "its address is not one of http or https" in run["error"]["message"], run
        assert "secretpart" not in str(run)


async def test_what_is_not_set_is_named(serve: Serve) -> None:
    async with serve(bundled=overriding(ntfy={}, email={}), environ=environ()) as live:
        for channel, told in (
            ("ntfy", "set the parameter topic"),
            ("slack", "SLACK_WEBHOOK_URL is not set"),
            ("email", "the parameter host of this task is empty"),
        ):
            run = await send(live, channel)
            assert told in run["error"]["message"], run


# ── Mail ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a certificate of ``localhost``, with its key, that is its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    key = file.with_name("key.pem")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(file), "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + key.read_bytes())
    return file


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate)
    return made


def mail_params(service: MailService, **params: Any) -> dict[str, Any]:
    known = {"host": "localhost", "port": service.port, "sender": "dicode@example.org"}
    return {"params": {**known, "to": "ops@example.org, boss@example.org", **params}}


@pytest.mark.parametrize("tls", [False, True])
async def test_mail_is_sent_encrypted_with_a_login(
    serve: Serve, context: ssl.SSLContext, certificate: Path, tls: bool
) -> None:
    login = ("dicode", "p4ssw0rd!")
    async with MailService(context=context, tls=tls, login=login).listening() as service:
        security = "tls" if tls else "starttls"
        given = mail_params(service, security=security, user="dicode")
        variables = environ(SMTP_PASSWORD="p4ssw0rd!", SSL_CERT_FILE=str(certificate))
        async with serve(bundled=overriding(email=given), environ=variables) as live:
            text = "backup failed: grün\nBcc: victim@example.org\r\n\r\nmore"
            run = await send(live, "email", text=text, url=URL)
            assert run["return_value"] == {"sent": 2}, run
        ((sender, to, source, encrypted),) = service.mails
        assert (sender, to) == ("dicode@example.org", ["ops@example.org", "boss@example.org"])
        assert encrypted
        assert service.passwords_in_clear == []
        mail = email.message_from_string(source, policy=email.policy.default)
        assert mail["Subject"] == "backup failed: grün Bcc: victim@example.org more"
        assert mail["Bcc"] is None
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail.get_content().rstrip().endswith(URL)


async def test_mail_that_cannot_be_sent_says_why(
    serve: Serve, context: ssl.SSLContext, certificate: Path
) -> None:
    login = ("dicode", "right")
    trusted = environ(SMTP_PASSWORD="wrong-one", SSL_CERT_FILE=str(certificate))
    async with MailService(context=context, login=login, refuse=["a@x.org"]).listening() as service:
        bundled = overriding(email=mail_params(service))
        async with serve(bundled=bundled, environ=trusted) as live:
            for params, told in (
                ({"user": "dicode"}, "refused the login (535)"),
                ({"to": "a@x.org"}, "refused every recipient (550)"),
                ({"to": "a@x.org, b@x.org"}, "refused 1 of 2 recipients"),
                ({"to": "ops@example.org\nBcc: x@y.org"}, "holds something that is no address"),
                ({"sender": "x"}, "the parameter sender holds something that is no address"),
                ({"user": "dicode", "security": "none"}, "never sent unencrypted"),
                ({"port": 1}, "localhost cannot be used: "),
            ):
                run = await send(live, "email", **params)
                assert told in run["error"]["message"], run
                assert "wrong-one" not in str(run)
        async with serve(bundled=bundled, environ=environ()) as live:
            run = await send(live, "email")
            assert "the certificate of localhost is not good" in run["error"]["message"], run
    assert service.passwords_in_clear == []


async def test_mail_to_a_server_without_encryption_is_refused_unless_it_is_wanted(
    serve: Serve,
) -> None:
    async with MailService().listening() as service:
        bundled = overriding(email=mail_params(service))
        async with serve(bundled=bundled, environ=environ()) as live:
            run = await send(live, "email")
            assert "does not do what is asked" in run["error"]["message"], run
            assert (await send(live, "email", security="none"))["status"] == "success"
        assert [encrypted for *_, encrypted in service.mails] == [False]


# ── Together ─────────────────────────────────────────────────────────────────────────────────


async def told(live: Live, count: int) -> list[dict[str, Any]]:
    """Give the runs of bundled/notify that have ended, newest first, once there are ``count``."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            runs = (await live.call("get_runs", task="bundled/notify"))["runs"]
            if len([run for run in runs if "finished_at" in run]) >= count:
                return runs


async def test_a_failure_reaches_every_channel_and_a_broken_one_is_visible(serve: Serve) -> None:
    async with HttpService().listening() as ntfy, HttpService([Answer(500)]).listening() as slack:
        bundled = overriding(
            notify={"params": {"channels": "ntfy, slack"}},
            ntfy={"params": {"topic": "ops", "server": ntfy.url}},
            slack={},
        )
        variables = environ(SLACK_WEBHOOK_URL=f"{slack.url}/secretpart")
        notifications = NotificationsConfig(task="bundled/notify")
        settings: dict[str, Any] = {"bundled": bundled, "notifications": notifications}
        async with serve(environ=variables, **settings) as live:
            live.write("backup", "raise ValueError('disk full')\n")
            await live.sync()
            run = await live.run("backup")
            (notice,) = await told(live, 1)
            assert (notice["status"], notice["parent_run_id"]) == ("failure", run["run_id"])
            assert notice["trigger"] == "notify"
            assert ntfy.got[0].json["message"] == "🔴 backup failed: ValueError: disk full"
            detail = await live.call("get_run", run_id=notice["run_id"])
            assert "1 of 2 channels failed: slack: " in detail["error"]["message"]
            for task_id in ("backup", "bundled/notify"):
                failing = await condition(live, task_id)
                assert failing["reason"] == "DeliveryFailed"
                assert notice["run_id"] in failing["message"]
            status = (await live.call("get_status"))["notifications"]
            assert (status["task"], status["failing"]) == ("bundled/notify", 1)
            assert status["last_run_id"] == notice["run_id"]
            assert "Slack answered 500" in status["last_error"]
            assert "secretpart" not in str(detail) + str(status)
            # What failed in telling is told by nobody.
            assert len((await live.call("get_runs"))["runs"]) == 4
            slack.answers[:] = [Answer()]
            live.write("backup", "pass\n")
            await live.sync()
            await live.run("backup")
            await told(live, 2)
            assert "works again, after 1 failed run" in ntfy.got[1].json["message"]
            await gone(live, "backup")
            assert (await live.call("get_status"))["notifications"]["failing"] == 0


async def condition(live: Live, task_id: str) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = await live.call("get_task", id=task_id)
            for found in seen["conditions"]:
                if found["type"] == "NotificationFailing":
                    return found


async def gone(live: Live, task_id: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = await live.call("get_task", id=task_id)
            if all(found["type"] != "NotificationFailing" for found in seen["conditions"]):
                return


async def test_the_bundled_failure_chain_tells_through_the_same_channels(serve: Serve) -> None:
    async with HttpService().listening() as ntfy:
        bundled = overriding(
            alert={"params": {"channels": "ntfy"}},
            ntfy={"params": {"topic": "ops", "server": ntfy.url}},
        )
        async with serve(bundled=bundled, environ=environ()) as live:
            manifest = "runtime: python\ntrigger: {manual: true}\non_failure_chain: bundled/alert\n"
            live.write("backup", "raise ValueError('disk full')\n", manifest)
            await live.sync()
            run = await live.run("backup")
            await until(lambda: bool(ntfy.got))
        assert ntfy.got[0].json["message"] == (
            f"🔴 backup failed: ValueError: disk full (run {run['run_id']})"
        )


async def test_a_channel_that_notify_may_not_start_is_refused_with_what_to_write(
    serve: Serve,
) -> None:
    bundled = overriding(notify={"params": {"channels": "pager"}})
    async with serve(bundled=bundled, environ=environ()) as live:
        live.write("pager", "pass\n")
        await live.sync()
        run = await send(live, "notify")
        assert 'permissions.dicode.tasks: ["pager"]' in run["error"]["message"], run
        run = await live.run("bundled/notify", params={"text": "x", "channels": ""})
        assert "no channel is named" in run["error"]["message"]
