import time

from dicode_sdk import dicode, log, params


def main():
    began = time.monotonic()
    items = [item.strip() for item in params.get("items").split(",") if item.strip()]
    if not items:
        raise ValueError("there is nothing to do: the parameter items is empty")
    result = {"itemsProcessed": len(items), "success": True}
    if params.get("with_agent"):
        result["agentResult"] = dicode.agent("my-agent", {"items": items}, timeout="30s")
    log.info(f"{len(items)} items in {time.monotonic() - began:.2f} s")
    return result
