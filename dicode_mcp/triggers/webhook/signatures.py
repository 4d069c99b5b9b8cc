"""Whether a message comes from who holds a webhook's secret: three ways to sign one. Pure.

``X-Hub-Signature-256`` as GitHub sends it (with ``X-Dicode-Timestamp``, covered, when that is
sent), ``Stripe-Signature`` as Stripe does, and the headers of Standard Webhooks. Every proof that
is sent must be right, and one at least be there.

A message is judged in two steps, so that no body is taken of one whose headers prove nothing:
``claimed`` reads the headers, ``proven`` compares with the raw bytes.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

TOLERANCE_S = 300
"""How far a signed time may be from ours."""

HUB = "x-hub-signature-256"
HUB_TIME = "x-dicode-timestamp"
STRIPE = "stripe-signature"
STANDARD = "webhook-signature"
STANDARD_NAMES = ("webhook", "svix")
"""What the three headers of Standard Webhooks begin with: now, and before it was a standard."""
_STANDARD_PARTS = ("id", "timestamp", "signature")
HEADERS = frozenset(
    {HUB, HUB_TIME, STRIPE}
    | {f"{name}-{part}" for name in STANDARD_NAMES for part in _STANDARD_PARTS}
)

_HUB_FORM = re.compile(r"sha256=[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{1,12}")
_ID = re.compile(r"[!-~]{1,256}")
_COVERED = re.compile(rb"(?:[A-Za-z0-9_-]{1,256}\.)?[0-9]{9,13}\.")
"""How what a timed signature covers begins: a time, and for Standard Webhooks an id before it."""
_WHSEC = "whsec_"


class Verdict(Enum):
    """Why a message is not believed."""

    MISSING = "missing"
    """It proves nothing: no signature, or not all that belongs to one."""
    WRONG = "wrong"
    """A signature is not that of this secret and this message, or not one at all."""
    STALE = "stale"
    """It was signed too long ago, or by a clock that is ahead."""


class Refused(Exception):
    """A message that is not believed; ``why`` is a sentence without any value of it."""

    def __init__(self, verdict: Verdict, why: str) -> None:
        super().__init__(why)
        self.verdict = verdict
        self.why = why


@dataclass(frozen=True, slots=True)
class Seal:
    """One right signature that names its time: what a replay would have in common with it."""

    digest: bytes
    time_s: int


@dataclass(frozen=True, slots=True)
class _Claim:
    """One signature as it was sent: any of ``given`` may be that of ``head`` and the body."""

    header: str
    key: bytes = field(repr=False)
    head: bytes
    given: tuple[bytes, ...]
    time_s: int | None
    in_base64: bool = False

    def proven(self, body: bytes) -> Seal | None:
        digest = hmac.digest(self.key, self.head + body, "sha256")
        wanted = b64encode(digest) if self.in_base64 else digest.hex().encode()
        # Each is compared, whichever is right, and each takes the same time.
        if not sum([hmac.compare_digest(wanted, one) for one in self.given]):
            raise Refused(Verdict.WRONG, f"{self.header} is not the signature of this message")
        if self.time_s is None:
            _require_untimed(self.header, body)
            return None
        return Seal(digest, self.time_s)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a message's headers claim; never empty."""

    claims: tuple[_Claim, ...]

    def proven(self, body: bytes) -> tuple[Seal, ...]:
        """Compare with the raw body; gives what a replay is known by. Raises ``Refused``."""
        return tuple(seal for claim in self.claims if (seal := claim.proven(body)) is not None)


def verify(
    secret: str, headers: Iterable[tuple[str, str]], body: bytes, now_s: float
) -> tuple[Seal, ...]:
    """Believe a message or raise ``Refused``. ``headers`` have lower-case names."""
    return claimed(secret, headers, now_s).proven(body)


def claimed(secret: str, headers: Iterable[tuple[str, str]], now_s: float) -> Claims:
    """Read what proves a message. Raises ``Refused``: MISSING, STALE, or WRONG when malformed."""
    given = _given(headers)
    claims = [
        claim
        for claim in (
            _hub(secret, given, now_s),
            _stripe(secret, given, now_s),
            *(_standard(name, secret, given, now_s) for name in STANDARD_NAMES),
        )
        if claim is not None
    ]
    if not claims:
        raise Refused(Verdict.MISSING, f"no signature was sent; one of {HUB}, {STRIPE}, {STANDARD}")
    return Claims(tuple(claims))


def _require_untimed(header: str, body: bytes) -> None:
    """Refuse as a body what another way to sign puts before one: its time would not be judged."""
    if _COVERED.match(body):
        raise Refused(
            Verdict.MISSING,
            f"what {header} covers begins with a time, and the header with that time was not sent",
        )


def _given(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Pick the headers that prove something. One that is sent empty is not sent."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name not in HEADERS:
            continue
        if name in found:
            raise Refused(Verdict.WRONG, f"{name} was sent twice")
        found[name] = value.strip()
    return {name: value for name, value in found.items() if value}


def _hub(secret: str, given: dict[str, str], now_s: float) -> _Claim | None:
    signature, time = given.get(HUB), given.get(HUB_TIME)
    if signature is None:
        if time is not None:
            raise Refused(Verdict.MISSING, f"{HUB_TIME} was sent without the {HUB} that covers it")
        return None
    if not _HUB_FORM.fullmatch(signature):
        raise Refused(Verdict.WRONG, f"{HUB} is not 'sha256=' and 64 lower-case hex digits")
    time_s = None if time is None else _fresh(time, HUB_TIME, now_s)
    head = b"" if time is None else f"{time}.".encode()
    return _Claim(HUB, _raw(secret), head, (signature[7:].encode(),), time_s)


def _stripe(secret: str, given: dict[str, str], now_s: float) -> _Claim | None:
    header = given.get(STRIPE)
    if header is None:
        return None
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    signatures = [value for name, _, value in parts if name == "v1"]
    if len(times) != 1:
        raise Refused(Verdict.WRONG, f"{STRIPE} does not name one time as t=")
    if not signatures:
        raise Refused(Verdict.WRONG, f"{STRIPE} has no signature v1=")
    time_s = _fresh(times[0], STRIPE, now_s)
    given_ones = tuple(one.encode() for one in signatures if _HEX.fullmatch(one))
    # Stripe's own secrets begin with whsec_ too, and are keys as they stand.
    return _Claim(STRIPE, _raw(secret), f"{times[0]}.".encode(), given_ones, time_s)


def _standard(name: str, secret: str, given: dict[str, str], now_s: float) -> _Claim | None:
    number, time, header = (given.get(f"{name}-{part}") for part in _STANDARD_PARTS)
    if header is None:
        return None
    if time is None or number is None:
        lacking = "timestamp" if time is None else "id"
        raise Refused(Verdict.MISSING, f"{name}-signature was sent without {name}-{lacking}")
    if not _ID.fullmatch(number):
        raise Refused(Verdict.WRONG, f"{name}-id is not 1 to 256 visible ASCII characters")
    time_s = _fresh(time, f"{name}-timestamp", now_s)
    versions = [part.partition(",") for part in header.split(" ") if part]
    signatures = tuple(
        value.encode("latin-1", "replace") for version, _, value in versions if version == "v1"
    )
    if not signatures:
        raise Refused(Verdict.WRONG, f"{name}-signature has no signature v1,…")
    head = f"{number}.{time}.".encode()
    claim = f"{name}-signature"
    return _Claim(claim, _standard_key(secret), head, signatures, time_s, in_base64=True)


def _raw(secret: str) -> bytes:
    # A variable's bytes need not be UTF-8; this gives them as they were.
    return secret.encode("utf-8", "surrogateescape")


def _standard_key(secret: str) -> bytes:
    if not secret.startswith(_WHSEC):
        return _raw(secret)
    text = secret[len(_WHSEC) :]
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        # An empty key is one that anybody has.
        raise Refused(Verdict.WRONG, "this webhook's secret is none of Standard Webhooks")
    return key


def _fresh(text: str, header: str, now_s: float) -> int:
    """Read a signed time in seconds; one too far from now is refused."""
    if not _TIME.fullmatch(text):
        raise Refused(Verdict.WRONG, f"the time in {header} is not seconds since 1970")
    time_s = int(text)
    if abs(now_s - time_s) > TOLERANCE_S:
        side = "old" if time_s < now_s else "early"
        raise Refused(
            Verdict.STALE,
            f"the time in {header} is more than {TOLERANCE_S} s too {side}; is the clock right?",
        )
    return time_s


def seen_key(task_id: str, seal: Seal) -> str:
    """Give what a replay of a message to a task is known by: a hash that shows nothing."""
    text = b"\0".join((task_id.encode(), seal.digest, str(seal.time_s).encode()))
    return hashlib.sha256(text).hexdigest()
