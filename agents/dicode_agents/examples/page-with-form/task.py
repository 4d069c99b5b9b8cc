import time

from dicode_sdk import dicode, params


def main() -> dict[str, object]:
    count = min(60, max(0, int(params.get("seconds"))))
    for done in range(count):
        dicode.progress(done, count, "counting")
        print(f"\x1b[36m{count - done}\x1b[0m …")
        time.sleep(1)
    return {"greeting": f"Hello, {params.get('name')}!", "counted": count}
