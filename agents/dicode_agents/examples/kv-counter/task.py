from dicode_sdk import kv, log, params


def main():
    count = kv.get("count", 0) + params.get("step")
    kv.set("count", count)
    log.info("count is now", count)
    return {"count": count}
