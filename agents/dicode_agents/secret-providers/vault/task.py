from urllib.parse import quote

from remote import MisconfiguredError, asked, get, needed, places, text_of

from dicode_sdk import env, input, output, params

WHO = "Vault"


def main():
    names = asked(input)
    wanted = {}
    usual = params.get("path")
    for name, place in places(params.get("places"), names, lambda n: f"{usual}#{n}").items():
        path, _, field = place.partition("#")
        if not path.strip("/"):
            needed(params, "path", "{path: my-app/production}")
        if not field:
            raise MisconfiguredError(f"the place of {name} is not path#field")
        wanted.setdefault(path.strip("/"), {})[name] = field
    found = {}
    for path, fields in wanted.items():
        kept = read(path)
        for name, field in fields.items():
            if kept.get(field) is not None:
                found[name] = text_of(kept[field])
    output(found, secret=True)
    return {"asked": len(names), "found": len(found)}


def read(path):
    """Give the fields of one secret, empty when there is none."""
    old = params.get("version") == "1"
    mount = quote(params.get("mount").strip("/"))
    headers = {"X-Vault-Token": env["VAULT_TOKEN"], "X-Vault-Request": "true"}
    if params.get("namespace"):
        headers["X-Vault-Namespace"] = params.get("namespace")
    answer = get(
        WHO,
        needed(params, "address", "{address: https://vault.example.com:8200}"),
        f"/v1/{mount}/{'' if old else 'data/'}{quote(path)}",
        headers=headers,
        plain=params.get("plain_http"),
        missing={404},
    )
    data = (answer or {}).get("data") or {}
    kept = data if old else data.get("data") or {}
    if not isinstance(kept, dict):
        raise MisconfiguredError(f"{WHO} gave no fields; is version right for this mount?")
    return kept
