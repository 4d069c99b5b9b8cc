"""What a task's page may do in a browser, as headers, and the proof by which its calls are known.

A page is code of whoever wrote the task, served from the address where the owner's browser is
trusted. So it gets an origin that is nobody's (``sandbox`` without ``allow-same-origin``), may load
and call only below its own webhook, and its calls carry a key that only that page was given.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

PAGE_KEY_HEADER = "x-dicode-page"
SCRIPT_PATH = "/dicode.js"

_SANDBOX = "sandbox allow-scripts allow-forms allow-popups allow-downloads allow-modals"
_NO_DEVICES = ", ".join(
    f"{name}=()"
    for name in (
        "camera",
        "display-capture",
        "geolocation",
        "hid",
        "microphone",
        "midi",
        "payment",
        "serial",
        "usb",
    )
)


def page_headers(scheme: str, host: str, path: str) -> dict[str, str]:
    """Give the headers of whatever a task shows at its webhook ``path``: pages and answers alike.

    ``host`` is the request's Host header. Put them on every answer whose bytes are a task's: HTML
    is not the only type that a browser runs.
    """
    return {
        "content-security-policy": policy(scheme, host, path),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "permissions-policy": _NO_DEVICES,
        "x-dns-prefetch-control": "off",
        # The page's own origin is nobody's, so what belongs to it is of another one to a browser.
        "cross-origin-resource-policy": "cross-origin",
    }


def policy(scheme: str, host: str, path: str) -> str:
    """Give the Content-Security-Policy of the webhook ``path``'s page."""
    here = _source(scheme, host, path)
    below = _source(scheme, host, f"{path}/")
    script = _source(scheme, host, SCRIPT_PATH)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'unsafe-inline' 'wasm-unsafe-eval' {below} {script}",
            f"style-src 'unsafe-inline' {below}",
            f"img-src {below} data: blob:",
            f"media-src {below} data: blob:",
            f"font-src {below} data:",
            f"connect-src {here} {below}",
            f"form-action {here} {below}",
            f"base-uri {below}",
            "worker-src blob:",
            "frame-ancestors 'self'",
            _SANDBOX,
        )
    )


def _source(scheme: str, host: str, path: str) -> str:
    # A source of a policy cannot name an IPv6 address; the server refuses the page's calls anyway.
    return "'self'" if "[" in host else f"{scheme}://{host}{path}"


class PageKeys:
    """Makes and checks the keys of pages: one for each webhook of each task, as long as we live.

    A page that was shown to a session gets a key of its own, ``MAC.SESSION``: its calls are that
    session's, and end with it.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)

    def of(self, task_id: str, path: str, session_id: str | None = None) -> str:
        """Give the key of a task's page at ``path``."""
        words = "\0".join((task_id, path, *((session_id,) if session_id else ()))).encode()
        mac = hmac.new(self._secret, words, hashlib.sha256).hexdigest()[:32]
        return f"{mac}.{session_id}" if session_id else mac

    def fits(self, task_id: str, path: str, key: str) -> bool:
        """Tell whether ``key`` is that of this page."""
        right = self.of(task_id, path, session_in(key))
        return hmac.compare_digest(right.encode(), key.encode())


def session_in(key: str) -> str | None:
    """Give the id of the session that a page's key belongs to; None where it belongs to none."""
    return key.partition(".")[2] or None
