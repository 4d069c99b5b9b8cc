"""The table of signature vectors: what proves a message to a webhook, and what does not.

Three are published: GitHub's example, and two of Standard Webhooks. The others are made here by
hand from the same parts, with nothing of the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass

import pytest

from dicode_mcp.triggers.webhook.signatures import Refused, Verdict, claimed, seen_key, verify

NOW = 1_731_705_121
BODY = b'{"event_type":"ping","data":{"success":true}}'
SECRET = "It's a Secret to Everybody"
STRIPE_SECRET = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"
WHSEC = "whsec_plJ3nmyCDGBKInavdOK15jsl"
MSG = "msg_loFOjxBNrRLzqYUf"
PUBLISHED = "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
GITHUB = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

RIGHT = None
MISSING, WRONG, STALE = Verdict.MISSING, Verdict.WRONG, Verdict.STALE
Headers = list[tuple[str, str]]


def hexed(key: bytes | str, text: bytes, algorithm: str = "sha256") -> str:
    raw = key.encode() if isinstance(key, str) else key
    return hmac.new(raw, text, algorithm).hexdigest()


def hub(key: str = SECRET, body: bytes = BODY) -> str:
    return "sha256=" + hexed(key, body)


def timed(time: object = NOW, key: str = SECRET, body: bytes = BODY) -> Headers:
    signature = "sha256=" + hexed(key, f"{time}.".encode() + body)
    return [("x-hub-signature-256", signature), ("x-dicode-timestamp", str(time))]


def stripe(time: object = NOW, key: str = STRIPE_SECRET, body: bytes = BODY) -> str:
    return hexed(key, f"{time}.".encode() + body)


def standard(
    time: object = NOW, key: bytes | None = None, body: bytes = BODY, number: str = MSG
) -> str:
    raw = base64.b64decode(WHSEC[6:]) if key is None else key
    digest = hmac.new(raw, f"{number}.{time}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def std(signature: str, time: object = NOW, number: str = MSG, name: str = "webhook") -> Headers:
    return [
        (f"{name}-id", number),
        (f"{name}-timestamp", str(time)),
        (f"{name}-signature", signature),
    ]


def h256(value: str) -> Headers:
    return [("x-hub-signature-256", value)]


def st(value: str) -> Headers:
    return [("stripe-signature", value)]


@dataclass(frozen=True)
class Vector:
    name: str
    expected: Verdict | None
    headers: Headers
    secret: str = SECRET
    body: bytes = BODY
    now: float = NOW


S = STRIPE_SECRET
VECTORS = [
    # GitHub
    Vector("github's documented example", RIGHT, h256(GITHUB), body=b"Hello, World!"),
    Vector("github, an altered byte", WRONG, h256(GITHUB), body=b"Hello, World?"),
    Vector("github, a byte more", WRONG, h256(GITHUB), body=b"Hello, World!\n"),
    Vector("github, a byte less", WRONG, h256(GITHUB), body=b"Hello, World"),
    Vector("github, an empty body", RIGHT, h256(hub(body=b"")), body=b""),
    Vector("github, bytes that are no text", RIGHT, h256(hub(body=b"\xff\0")), body=b"\xff\0"),
    Vector("github, another secret", WRONG, h256(hub("other"))),
    Vector("github, a secret with a blank more", WRONG, h256(hub(SECRET + " "))),
    Vector("github, a secret beyond ascii", RIGHT, h256(hub("schlüssel")), secret="schlüssel"),
    Vector("github, a whsec_ secret as it stands", RIGHT, h256(hub(WHSEC)), secret=WHSEC),
    Vector("github, upper-case digits", WRONG, h256(GITHUB.upper()), body=b"Hello, World!"),
    Vector(
        "github, upper-case hex after sha256=",
        WRONG,
        h256("sha256=" + GITHUB[7:].upper()),
        body=b"Hello, World!",
    ),
    Vector("github, an upper-case name", WRONG, h256("SHA256=" + hub()[7:])),
    Vector("github, no name of the algorithm", WRONG, h256(hub()[7:])),
    Vector("github, sha1 under the name", WRONG, h256("sha1=" + hexed(SECRET, BODY, "sha1"))),
    Vector("github, sha512 cut to length", WRONG, h256("sha256=" + hexed(SECRET, BODY, "sha512"))),
    Vector("github, one digit short", WRONG, h256(hub()[:-1])),
    Vector("github, one digit long", WRONG, h256(hub() + "0")),
    Vector("github, two in one header", WRONG, h256(f"{hub()}, {hub()}")),
    Vector("github, digits that are not ascii", WRONG, h256("sha256=" + "\uff11" * 64)),
    Vector("github, base64 in place of hex", WRONG, h256("sha256=" + standard()[3:])),
    Vector("github, only the sha1 header", MISSING, [("x-hub-signature", "sha1=00")]),
    Vector("nothing at all", MISSING, []),
    Vector("github, an empty header", MISSING, h256("")),
    Vector("github, a blank header", MISSING, h256("  ")),
    Vector("github, the same header twice", WRONG, h256(hub()) + h256(hub())),
    Vector("github, a wrong one before the right one", WRONG, h256(GITHUB) + h256(hub())),
    # A covered time
    Vector("time, covered and fresh", RIGHT, timed()),
    Vector("time, 300 s old", RIGHT, timed(NOW - 300)),
    Vector("time, 301 s old", STALE, timed(NOW - 301)),
    Vector("time, 300 s ahead", RIGHT, timed(NOW + 300)),
    Vector("time, 301 s ahead", STALE, timed(NOW + 301)),
    Vector("time, not covered", WRONG, [*h256(hub()), ("x-dicode-timestamp", str(NOW))]),
    Vector("time, taken away", WRONG, timed()[:1]),
    *(
        Vector(
            f"time, moved into the body: {time}",
            MISSING,
            timed(time)[:1],
            body=f"{time}.".encode() + BODY,
        )
        for time in (NOW, NOW - 86_400, f"00{NOW}", f"{NOW}000")
    ),
    Vector(
        "standard's id and time, moved into the body",
        MISSING,
        h256(hub(body=f"{MSG}.{NOW}.".encode() + BODY)),
        body=f"{MSG}.{NOW}.".encode() + BODY,
    ),
    Vector(
        "time, moved into the body that is altered",
        WRONG,
        timed()[:1],
        body=f"{NOW + 1}.".encode() + BODY,
    ),
    Vector(
        "time, covered, before a body that begins with one",
        RIGHT,
        timed(body=b"1731705121.x"),
        body=b"1731705121.x",
    ),
    *(
        Vector(
            f"github, a body with numbers: {body.decode()}", RIGHT, h256(hub(body=body)), body=body
        )
        for body in (b"12345.5", b'{"a":"1731705121.2"}', b"[1731705121.5]", b"a=1731705121.5")
    ),
    Vector("time, made fresh", WRONG, [timed(NOW - 900)[0], timed(NOW)[1]]),
    Vector("time, without a signature", MISSING, timed()[1:]),
    Vector("time, in milliseconds", STALE, timed(f"{NOW}000"[:12])),
    Vector("time, with a fraction", WRONG, timed(f"{NOW}.0")),
    Vector("time, negative", WRONG, timed(-NOW)),
    Vector("time, with a sign", WRONG, timed(f"+{NOW}")),
    Vector("time, a word", WRONG, timed("now")),
    Vector("time, digits that are not ascii", WRONG, timed("\u0661" * 10)),
    Vector("time, twice", WRONG, [*timed(), timed()[1]]),
    # Stripe
    Vector("stripe, one signature", RIGHT, st(f"t={NOW},v1={stripe()}"), S),
    Vector("stripe, with the old scheme too", RIGHT, st(f"t={NOW},v1={stripe()},v0=6f"), S),
    Vector("stripe, the second is right", RIGHT, st(f"t={NOW},v1={'0' * 64},v1={stripe()}"), S),
    Vector("stripe, blanks after commas", RIGHT, st(f"t={NOW}, v1={stripe()}"), S),
    Vector("stripe, 300 s old", RIGHT, st(f"t={NOW - 300},v1={stripe(NOW - 300)}"), S),
    Vector("stripe, 301 s old", STALE, st(f"t={NOW - 301},v1={stripe(NOW - 301)}"), S),
    Vector("stripe, 301 s ahead", STALE, st(f"t={NOW + 301},v1={stripe(NOW + 301)}"), S),
    Vector("stripe, made fresh", WRONG, st(f"t={NOW},v1={stripe(NOW - 900)}"), S),
    Vector("stripe, an altered body", WRONG, st(f"t={NOW},v1={stripe()}"), S, BODY + b" "),
    Vector("stripe, upper-case hex", WRONG, st(f"t={NOW},v1={stripe().upper()}"), S),
    Vector("stripe, only the old scheme", WRONG, st(f"t={NOW},v0={stripe()}"), S),
    Vector("stripe, no time", WRONG, st(f"v1={stripe()}"), S),
    Vector("stripe, two times", WRONG, st(f"t={NOW},t={NOW},v1={stripe()}"), S),
    Vector("stripe, an empty time", WRONG, st(f"t=,v1={stripe('')}"), S),
    Vector("stripe, an empty signature", WRONG, st(f"t={NOW},v1="), S),
    Vector("stripe, an empty header", MISSING, st(""), S),
    Vector("stripe, nonsense", WRONG, st("=,=;,t"), S),
    Vector(
        "stripe, the secret's base64 as key",
        WRONG,
        st(f"t={NOW},v1={hexed(base64.b64decode(S[6:]), f'{NOW}.'.encode() + BODY)}"),
        S,
    ),
    # Standard Webhooks
    Vector("standard, the published example", RIGHT, std(PUBLISHED), WHSEC),
    Vector("standard, the published example as svix", RIGHT, std(PUBLISHED, name="svix"), WHSEC),
    Vector(
        "standard, the library's example",
        RIGHT,
        std(
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            1614265330,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
        ),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        b'{"test": 2432232314}',
        1614265330,
    ),
    Vector("standard, the third is right", RIGHT, std(f"v1,AA== v1a,BB== {PUBLISHED}"), WHSEC),
    Vector("standard, none is right", WRONG, std("v1,AA== v1,BB=="), WHSEC),
    Vector("standard, only another version", WRONG, std("v1a," + PUBLISHED[3:]), WHSEC),
    Vector("standard, no version", WRONG, std(PUBLISHED[3:]), WHSEC),
    Vector("standard, commas between", WRONG, std(f"v1,AA==,{PUBLISHED}"), WHSEC),
    Vector("standard, an empty signature", WRONG, std("v1,"), WHSEC),
    Vector("standard, hex in place of base64", WRONG, std("v1," + "0" * 64), WHSEC),
    Vector("standard, an altered body", WRONG, std(PUBLISHED), WHSEC, BODY + b" "),
    Vector("standard, another id", WRONG, std(PUBLISHED, number="msg_other"), WHSEC),
    Vector("standard, made fresh", WRONG, std(PUBLISHED, NOW + 10), WHSEC),
    Vector("standard, 300 s old", RIGHT, std(PUBLISHED), WHSEC, now=NOW + 300),
    Vector("standard, 301 s old", STALE, std(PUBLISHED), WHSEC, now=NOW + 301),
    Vector("standard, 301 s ahead", STALE, std(PUBLISHED), WHSEC, now=NOW - 301),
    Vector("standard, no id", MISSING, std(PUBLISHED)[1:], WHSEC),
    Vector("standard, no time", MISSING, [std(PUBLISHED)[0], std(PUBLISHED)[2]], WHSEC),
    Vector("standard, no signature", MISSING, std(PUBLISHED)[:2], WHSEC),
    Vector("standard, an id with a blank", WRONG, std(standard(number="a b"), number="a b"), WHSEC),
    Vector("standard, a raw secret", RIGHT, std(standard(key=SECRET.encode()))),
    Vector("standard, whsec_ as raw bytes", WRONG, std(standard(key=WHSEC.encode())), WHSEC),
    Vector("standard, whsec_ that is not base64", WRONG, std(PUBLISHED), "whsec_%%%"),
    Vector("standard, whsec_ alone and its empty key", WRONG, std(standard(key=b"")), "whsec_"),
    Vector(
        "standard, whsec_ without padding", RIGHT, std(standard(key=b"\1\2\3\4")), "whsec_AQIDBA"
    ),
    # More than one
    Vector("both right", RIGHT, h256(hub(WHSEC)) + std(PUBLISHED), WHSEC),
    Vector("one right, one wrong", WRONG, h256(GITHUB) + std(PUBLISHED), WHSEC),
    Vector("a right one does not cover a bare time", MISSING, std(PUBLISHED) + timed()[1:], WHSEC),
]


@pytest.mark.parametrize("vector", VECTORS, ids=[v.name for v in VECTORS])
def test_each_message_is_judged_as_the_table_says(vector: Vector) -> None:
    outcome = why = None
    try:
        verify(vector.secret, vector.headers, vector.body, vector.now)
    except Refused as refused:
        outcome, why = refused.verdict, refused.why
    assert outcome is vector.expected
    assert why is None or vector.secret not in why


def test_the_table_has_forty_vectors_at_least_and_no_name_twice() -> None:
    assert len(VECTORS) >= 40
    assert len({vector.name for vector in VECTORS}) == len(VECTORS)


def test_a_message_without_proof_is_refused_before_its_body_is_there() -> None:
    with pytest.raises(Refused) as refused:
        claimed(SECRET, [], NOW)
    assert refused.value.verdict is MISSING
    with pytest.raises(Refused) as refused:
        claimed(SECRET, timed(NOW - 301), NOW)
    assert refused.value.verdict is STALE
    assert "too old" in refused.value.why


def test_a_replay_is_known_by_the_signature_and_not_by_how_it_is_written() -> None:
    (seal,) = verify(WHSEC, std(PUBLISHED), BODY, NOW)
    (again,) = verify(WHSEC, std(f"v1,AA== {PUBLISHED}"), BODY, NOW + 5)
    (other,) = verify(WHSEC, std(standard(NOW + 1), NOW + 1), BODY, NOW)
    assert seen_key("t", seal) == seen_key("t", again)
    assert seen_key("t", seal) != seen_key("t", other)
    assert seen_key("t", seal) != seen_key("u", seal)


def test_a_signature_without_a_time_is_not_remembered() -> None:
    assert verify(SECRET, h256(hub()), BODY, NOW) == ()


def test_a_secret_that_is_not_utf8_is_taken_byte_by_byte() -> None:
    raw = b"\xff\xfe key"
    secret = raw.decode("utf-8", "surrogateescape")
    assert verify(secret, h256("sha256=" + hexed(raw, BODY)), BODY, NOW) == ()


def test_what_a_message_claims_does_not_show_the_key() -> None:
    assert SECRET not in repr(claimed(SECRET, h256(hub()), NOW))
