import base64
import hashlib
import hmac
import json
import os
import time

from channel import RefusedError, post

from dicode_sdk import env, params


def notice_of(given):
    """Give what is sent: the notice that started the task, or was handed on, or the parameters."""
    if isinstance(given, dict):
        return given
    if params.get("notice"):
        return json.loads(params.get("notice"))
    shown = {name: params.get(name) for name in ("event", "text", "url") if params.get(name)}
    if not shown:
        raise RefusedError("the webhook has nothing to send: give the parameter text or notice")
    return shown


def key_of(secret):
    """Give the bytes of a secret: base64 after ``whsec_``, else the text itself."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise RefusedError("WEBHOOK_SECRET: what follows whsec_ is not base64") from None


def signed(body, key, message_id, now):
    """Give the headers of Standard Webhooks for a body."""
    signature = hmac.digest(key, f"{message_id}.{now}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": "v1," + base64.b64encode(signature).decode(),
    }


def main(input):
    body = json.dumps(notice_of(input)).encode()
    headers = {"Content-Type": "application/json"}
    secret = env.get("WEBHOOK_SECRET")
    if secret:
        # The run's id: whoever gets it twice can tell.
        message_id = f"msg_{os.environ['DICODE_RUN_ID']}"
        headers |= signed(body, key_of(secret), message_id, int(time.time()))
    post(env["WEBHOOK_URL"], body, who="the webhook", headers=headers, hide=[secret])
    return {"sent": 1}
