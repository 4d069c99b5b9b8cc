from dicode_sdk import log, params


def main():
    readings = [(7 * n) % 10 for n in range(params.get("count"))]
    log.info(f"{len(readings)} readings")
    return {"station": "demo", "readings": readings}
