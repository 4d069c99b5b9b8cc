from datetime import UTC, datetime, timedelta

from dicode_sdk import input, kv, log, params

KINDS = ("tasks", "reddit", "rss")


def age(record, now):
    """Give how old a record is; its timestamp is ISO 8601, in UTC unless it says otherwise."""
    moment = datetime.fromisoformat(record["timestamp"])
    return now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def main():
    """Keep what ``input`` adds, such as ``{"tasks": [{"timestamp": "2026-01-10T14:32:48Z"}]}``."""
    now, most = datetime.now(UTC), timedelta(days=params.get("days"))
    added = input if isinstance(input, dict) else {}
    result = {}
    for kind in KINDS:
        records = [*kv.get(kind, []), *added.get(kind, [])]
        kept = [record for record in records if age(record, now) < most]
        kv.set(kind, kept)
        log.info(f"{kind}: {len(records) - len(kept)} gone, {len(kept)} stay")
        result[f"{kind}Retained"] = len(kept)
    return result
