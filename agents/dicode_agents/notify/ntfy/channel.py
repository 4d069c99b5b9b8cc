"""What every channel needs: the words of a notice, and one HTTP request with errors one can act on.

The same file lies beside each channel that sends over HTTP, so that each folder stands alone. No
error names an address beyond its host: the rest of it is often the secret. One that will not pass
by itself is not tried again.
"""

import json
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from dicode_sdk import NoRetry

MARKS = {
    "first_failure": "🔴",
    "changed_failure": "🔴",
    "reminder": "🟠",
    "recovery": "🟢",
    "success": "🟢",
}
"""What a message begins with, by event."""

TIMEOUT_S = 20
LONGEST_WAIT_S = 20
"""A service that asks for more patience than this gets the run's failure, and its retry."""
MOST_READ = 64 * 1024


class DeliveryError(Exception):
    """The message did not get through; the text says why and holds no secret."""


class RefusedError(DeliveryError, NoRetry):
    """Nor will it when it is sent again: something has to be set right first."""


AGAIN = frozenset({408, 425, 429})
"""The refusals that may pass."""


def words(params, most, escape=str):
    """Give the message as text of at most ``most`` characters, the address of the run last."""
    text = params.get("text")
    if not text:
        raise RefusedError(
            "there is nothing to tell: give the parameter text, or name this task in"
            " notifications.task of dicode.yaml, which fills it"
        )
    mark = MARKS.get(params.get("event", ""))
    url = params.get("url")
    tail = "\n" + escape(url) if url else ""
    head = escape(f"{mark} {text}" if mark else text)
    return cut(head, most - len(tail)) + tail


def cut(text, most):
    """Shorten text to ``most`` characters, with a mark where it was cut."""
    return text if len(text) <= most else text[: most - 1] + "…"


def post_json(url, value, *, who, headers=None, hide=()):
    """Send ``value`` as JSON; give the answer's body. See ``post``."""
    body = json.dumps(value).encode()
    sent = {"Content-Type": "application/json", **(headers or {})}
    return post(url, body, who=who, headers=sent, hide=hide)


def post(url, body, *, who, headers, hide=()):
    """Send ``body`` and give the answer's; a busy service is asked once more when it says when.

    Raises ``DeliveryError``. ``hide`` are texts that no error may show.
    """
    host = host_of(url, who)
    for last in (False, True):
        request = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")
        request.add_header("User-Agent", "dicode-notify")
        try:
            with _opener().open(request, timeout=TIMEOUT_S) as answer:
                return answer.read(MOST_READ)
        except urllib.error.HTTPError as error:
            with error:
                wait = retry_after(error)
                said = _shown(error.read(2000), [url, *hide])
            if last or wait is None or wait > LONGEST_WAIT_S:
                later = "" if wait is None else f", to be tried again in {wait:g} s"
                passes = error.code >= 500 or error.code in AGAIN
                kind = DeliveryError if passes else RefusedError
                raise kind(f"{who} answered {error.code}{later}{said}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            why = reason.strerror if isinstance(reason, OSError) and reason.strerror else ""
            why = why or type(reason).__name__
            raise DeliveryError(f"{who}: {host} cannot be reached: {why}") from None
        time.sleep(wait)


def host_of(url, who):
    """Give the host of an address. Raises ``DeliveryError`` when it is not one of HTTP."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine or any(ord(c) <= 32 or ord(c) >= 127 for c in url):
        raise RefusedError(f"{who}: its address is not one of http or https")
    return parts.hostname


def retry_after(error):
    """Give the seconds that a busy service asks for, None when it does not."""
    if error.code not in (429, 503):
        return None
    try:
        return max(0.0, float(error.headers.get("Retry-After", "")))
    except ValueError:
        return None


def _shown(body, hide):
    text = " ".join(body.decode("utf-8", "replace").split())
    for secret in hide:
        text = text.replace(secret, "…") if secret else text
    return f": {cut(text, 200)}" if text else ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are answers: followed, they would carry a secret to another host."""

    def redirect_request(self, *args):
        return None


def _opener():
    return urllib.request.build_opener(_NoRedirect)
