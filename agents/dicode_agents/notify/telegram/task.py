import re

from channel import RefusedError, post_json, words

from dicode_sdk import env, params

# Telegram counts UTF-16 units, of which a character may take two.
MOST_CHARS = 2048


def main():
    token, chat = env["TELEGRAM_BOT_TOKEN"], params.get("chat_id")
    if not chat:
        raise RefusedError("Telegram: no chat; set the parameter chat_id of this task")
    if not re.fullmatch(r"[A-Za-z0-9:_-]+", token):
        raise RefusedError("Telegram: TELEGRAM_BOT_TOKEN is not a bot's token")
    # Without a parse_mode the text is shown as it is: there is nothing to escape.
    message = {
        "chat_id": chat,
        "text": words(params, MOST_CHARS),
        "link_preview_options": {"is_disabled": True},
    }
    url = f"{params.get('server').rstrip('/')}/bot{token}/sendMessage"
    post_json(url, message, who="Telegram", hide=[token])
    return {"sent": 1}
