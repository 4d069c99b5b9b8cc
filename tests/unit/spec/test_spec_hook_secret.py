"""What is said of a webhook whose secret is not there."""

import pytest

from dicode_mcp.spec.hook_secret import secret_not_set, webhook_secret_missing
from dicode_mcp.testing.rooms import make_task


def said(secret: object) -> str:
    task = make_task("t", trigger={"webhook": "/hooks/x", "webhook_secret": secret})
    (condition,) = webhook_secret_missing(task)
    assert (condition.type, condition.status) == ("Ready", False)
    assert condition.reason == "WebhookSecretMissing"
    return condition.message


def test_a_variable_that_is_not_set_is_named_with_what_to_do() -> None:
    message = said("${HOOK_SECRET}")
    assert message.startswith("task.yaml: trigger.webhook_secret: HOOK_SECRET is not set")
    assert "start the server with HOOK_SECRET set" in message


def test_the_rest_of_the_text_is_not_shown() -> None:
    message = said("prefix-${ONE}-${TWO}")
    assert "ONE, TWO are not set" in message
    assert "prefix" not in message


def test_a_placeholder_without_a_name_is_told() -> None:
    assert "names no variable" in said("${}")


def test_a_stored_secret_that_is_not_there_is_named_with_its_command() -> None:
    told = secret_not_set("github")
    assert (told.type, told.status, told.reason) == ("Ready", False, "WebhookSecretMissing")
    assert "no secret 'github'" in told.message
    assert "dicode secrets set github" in told.message


@pytest.mark.parametrize(
    "trigger",
    [
        {"manual": True},
        {"webhook": "/hooks/x"},
        {"webhook": "/hooks/x", "webhook_secret": "s3"},
        {"webhook": "/hooks/x", "webhook_secret": {"secret": "in_the_store"}},
    ],
)
def test_nothing_is_said_where_nothing_is_missing(trigger: dict[str, object]) -> None:
    assert webhook_secret_missing(make_task("t", trigger=trigger)) == ()
