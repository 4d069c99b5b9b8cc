import asyncio
import json

from dicode_sdk import dicode, input, log, params

WHOLE = frozenset({"webhook"})
"""The channels that send a whole notice, not only its words."""


class DeliveryError(Exception):
    """Some channel did not get the message through; the text says which and why."""


async def send(channel, message):
    """Start one channel and wait; gives why it failed, or None."""
    given = dict(message)
    if channel.rpartition("/")[2] in WHOLE and isinstance(input, dict):
        given["notice"] = json.dumps(input)
    try:
        run = await dicode.run_task_async(channel, given)
    except Exception as error:
        return f"{channel}: {error}"
    if run["status"] == "success":
        log.info(f"{channel}: sent")
        return None
    why = (run.get("error") or {}).get("message") or run["status"]
    return f"{channel}: {why} (run {run['runID']})"


async def main():
    channels = [name.strip() for name in params.get("channels").split(",") if name.strip()]
    if not channels:
        raise DeliveryError(
            "no channel is named: set the parameter channels of this task, such as 'ntfy, slack'"
        )
    message = {name: params.get(name) for name in ("text", "event", "url") if params.get(name)}
    ends = await asyncio.gather(*(send(channel, message) for channel in dict.fromkeys(channels)))
    failed = [end for end in ends if end is not None]
    for end in failed:
        log.error(end)
    if failed:
        raise DeliveryError(f"{len(failed)} of {len(ends)} channels failed: {'; '.join(failed)}")
    return {"sent": len(ends)}
