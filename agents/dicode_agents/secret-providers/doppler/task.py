from urllib.parse import urlencode

from remote import MisconfiguredError, asked, get, places, text_of

from dicode_sdk import env, input, output, params

WHO = "Doppler"


def main():
    names = asked(input)
    query = {"format": "json"}
    for name in ("project", "config"):
        if params.get(name):
            query[name] = params.get(name)
    kept = get(
        WHO,
        params.get("address"),
        f"/v3/configs/config/secrets/download?{urlencode(query)}",
        headers={"Authorization": f"Bearer {env['DOPPLER_TOKEN']}"},
        plain=params.get("plain_http"),
    )
    if not isinstance(kept, dict):
        raise MisconfiguredError(f"{WHO} did not answer with names and values")
    where = places(params.get("places"), names, lambda name: name)
    found = {n: text_of(kept[key]) for n, key in where.items() if kept.get(key) is not None}
    output(found, secret=True)
    return {"asked": len(names), "found": len(found)}
