import json
import os
import urllib.error
import urllib.request

from dicode_sdk import dicode, env, log, params

FAILED = ("failure", "timeout", "lost")


def newest(count):
    """Give the newest runs of all tasks that have ended; this task's own are left out."""
    runs = []
    for task in dicode.list_tasks():
        if task["id"] != os.environ["DICODE_TASK_ID"]:
            runs += dicode.get_runs(task["id"], count)
    ended = [run for run in runs if "finished_at" in run]
    return sorted(ended, key=lambda run: run["finished_at"])[-count:]


def line(run):
    error = (run.get("error") or {}).get("message") or run["status"]
    text = " ".join(f"• {run['task']}: {error}".split())[:300]
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def send(url, text):
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20):
            pass
    except urllib.error.HTTPError as error:
        # Not the error itself: it knows the address, and whoever has that may post.
        raise RuntimeError(f"Slack API error: {error.code}") from None
    except (OSError, ValueError):
        raise RuntimeError("Slack cannot be reached; look at SLACK_WEBHOOK") from None


def main():
    errors = [run for run in newest(int(params.get("last"))) if run["status"] in FAILED]
    if not errors:
        return {"notificationsSent": 0, "reason": "no errors"}
    message = "\n".join([f"🚨 dicode Errors ({len(errors)})", *map(line, errors)])
    url = env.get("SLACK_WEBHOOK")
    if not url:
        log.warn("SLACK_WEBHOOK is not set, so nobody is told:\n" + message)
        return {"notificationsSent": 0, "errorCount": len(errors)}
    send(url, message)
    return {"notificationsSent": 1, "errorCount": len(errors)}
