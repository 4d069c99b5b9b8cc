from dicode_sdk import log, params


def main():
    name = params.get("name")
    log.info(f"greeting {name}")
    return {"greeting": f"Hello, {name}!"}
