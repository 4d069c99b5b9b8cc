import re
from urllib.parse import quote, urlencode

from remote import MisconfiguredError, asked, get, needed, places, text_of

from dicode_sdk import env, input, output, params

WHO = "1Password Connect"
_ID = re.compile(r"[a-z0-9]{26}")
_USUAL = ("password", "credential", "token", "value")


def main():
    names = asked(input)
    vault = vault_id(needed(params, "vault", "{vault: Production}"))
    items, found = {}, {}
    for name, place in places(params.get("places"), names, lambda name: name).items():
        title, _, label = place.partition("#")
        if title not in items:
            items[title] = fields(vault, title)
        value = pick(items[title], label)
        if value is not None:
            found[name] = text_of(value)
    output(found, secret=True)
    return {"asked": len(names), "found": len(found)}


def ask(path, missing=None):
    return get(
        WHO,
        needed(params, "address", "{address: http://localhost:8080}"),
        f"/v1/{path}",
        headers={"Authorization": f"Bearer {env['OP_CONNECT_TOKEN']}"},
        plain=params.get("plain_http"),
        missing=missing,
    )


def vault_id(named):
    """Give the id of the vault that a parameter names."""
    if _ID.fullmatch(named):
        return named
    return only(ask(f"vaults?{equals('name', named)}"), f"a vault {named!r}", True)["id"]


def fields(vault, title):
    """Give the fields of an item, empty when there is none of this title."""
    path = f"vaults/{quote(vault)}/items"
    known = title if _ID.fullmatch(title) else None
    if known is None:
        item = only(ask(f"{path}?{equals('title', title)}"), f"an item {title!r}", False)
        known = item and item["id"]
    item = ask(f"{path}/{quote(known)}", missing={404}) if known else None
    return (item or {}).get("fields") or []


def pick(kept, label):
    """Give the value of the field of a label; without one, of the field that is the password."""
    if label:
        match = (f for f in kept if label in (f.get("label"), f.get("id")))
    else:
        match = (f for f in kept if f.get("purpose") == "PASSWORD")
    found = next(match, None)
    if found is None and not label:
        named = {str(f.get("label")).lower(): f for f in reversed(kept)}
        found = next((named[name] for name in _USUAL if name in named), None)
    return found.get("value") if found else None


def equals(key, value):
    """Write a filter; a quote in a value would end it early."""
    if '"' in value or "\\" in value:
        raise MisconfiguredError(
            "a vault or item with a quote or backslash in its name: use its id"
        )
    return urlencode({"filter": f'{key} eq "{value}"'})


def only(found, what, required):
    if not isinstance(found, list):
        raise MisconfiguredError(f"{WHO} did not answer with a list; is the address right?")
    if len(found) > 1:
        raise MisconfiguredError(f"{WHO} has {what} {len(found)} times: use its id")
    if required and not found:
        raise MisconfiguredError(f"{WHO} has not {what}, or the token may not read it")
    return found[0] if found else None
