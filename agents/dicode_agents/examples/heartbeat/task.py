import time

from dicode_sdk import kv, log


def main():
    now = time.time()
    last = kv.get("last")
    kv.set("last", now)
    if last is None:
        log.info("first beat")
        return {"since_last_seconds": None}
    log.info(f"{now - last:.0f} s since the last beat")
    return {"since_last_seconds": round(now - last)}
