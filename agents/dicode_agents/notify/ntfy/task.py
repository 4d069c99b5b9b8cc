from channel import RefusedError, cut, post_json, words

from dicode_sdk import env, params

MOST_BYTES = 4096
PRIORITY = {"first_failure": 4, "changed_failure": 4, "reminder": 3, "recovery": 3, "success": 2}


def fitting(text):
    """Shorten a message to what ntfy shows as text; what is longer becomes a file there."""
    while len(text.encode()) > MOST_BYTES:
        text = cut(text, len(text) - max(1, (len(text.encode()) - MOST_BYTES) // 4))
    return text


def main():
    topic, token, url = params.get("topic"), env.get("NTFY_TOKEN"), params.get("url")
    if not topic:
        raise RefusedError("ntfy: no topic; set the parameter topic of this task")
    message = {"topic": topic, "message": fitting(words(params, MOST_BYTES))}
    message["priority"] = PRIORITY.get(params.get("event", ""), 3)
    if url:
        message["click"] = url
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    post_json(params.get("server"), message, who="ntfy", headers=headers, hide=[token, topic])
    return {"sent": 1}
