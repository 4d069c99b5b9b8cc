"""Which names of fields say that their values are secrets, and what is shown in their place."""

from __future__ import annotations

from typing import Any

import pytest

from dicode_mcp.runs.sensitive import HIDDEN, hidden, tells


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "Password",
            "PASSWORD",
            "db_password",
            "dbPassword",
            "new-password",
            "passwd",
        ),
        *("token", "TOKEN", "access_token", "accessToken", "X-Auth-Token", "GITHUB_TOKEN", "jwt"),
        *("secret", "client_secret", "clientSecret", "secrets", "aws.secret.key", "SECRET2"),
        *("api_key", "apiKey", "API-KEY", "apikey", "openai_apikey", "x-api-key", "ApiKey"),
        *("authorization", "Authorization", "Proxy-Authorization", "auth", "basic_auth", "bearer"),
        *("cookie", "Set-Cookie", "cookies", "sessionid", "session_id", "SessionKey"),
        *("private_key", "privateKey", "ssh-key", "signing_key", "access.key", "AWSAccessKey"),
        *("credential", "credentials", "passphrase", "PassCode", "pin", "card_pin", "otp", "cvv"),
        *("X-Hub-Signature-256", "webhook_url", "connectionString", "DATABASE_DSN", "pwd"),
    ],
)
def test_a_name_that_tells(name: str) -> None:
    assert tells(name)
    assert hidden({name: "s3cret value", "other": "seen"}) == {name: HIDDEN, "other": "seen"}
    assert hidden([{"deep": {name: {"a": ["s3cret"]}}}]) == [{"deep": {name: HIDDEN}}]


@pytest.mark.parametrize(
    "name",
    [
        *("city", "key", "keys", "keyboard", "author", "authority", "pinned", "opinion", "spin"),
        *(
            "max_token",
            "token_count",
            "tokenLimit",
            "total_tokens",
            "passenger",
            "compass",
        ),
        *("cookbook", "designature", "robot", "potpourri", "monkey", "", "日本"),
    ],
)
def test_a_name_that_does_not_tell(name: str) -> None:
    assert not tells(name)
    assert hidden({name: "seen"}) == {name: "seen"}


@pytest.mark.parametrize("value", [None, "", True, False])
def test_what_is_unset_is_shown_as_unset(value: Any) -> None:
    assert hidden({"password": value}) == {"password": value}


@pytest.mark.parametrize("value", [1234, 12.5, ["a"], {"b": 1}, "x", 0])
def test_any_other_value_of_such_a_field_is_hidden(value: Any) -> None:
    assert hidden({"pin": value}) == {"pin": HIDDEN}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user=anna&password=hunter2&city=Oslo", f"user=anna&password={HIDDEN}&city=Oslo"),
        ("https://x.example/?api_key=abc123#top", f"https://x.example/?api_key={HIDDEN}"),
        ("token%3Dabc", f"token%3D{HIDDEN}"),
        ("a=b; session_id=abc; c=d", f"a=b; session_id={HIDDEN}; c=d"),
        ("plain text = nothing", "plain text = nothing"),
        ("my password is not a field", "my password is not a field"),
    ],
)
def test_a_form_or_a_query_in_a_text_is_looked_at_by_its_fields(text: str, shown: str) -> None:
    assert hidden(text) == shown
    assert hidden({"body": [text]}) == {"body": [shown]}


def test_what_is_not_hidden_is_as_it_was() -> None:
    value: dict[str, Any] = {"a": [1, 2.5, None, True, "x"], "b": {"c": {}}, "": []}
    assert hidden(value) == value
