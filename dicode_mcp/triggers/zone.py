"""The zone of the machine, for cron tasks that name none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

LOCALTIME = Path("/etc/localtime")


def server_zone(environ: Mapping[str, str], localtime: Path = LOCALTIME) -> ZoneInfo:
    """Give the zone that ``TZ`` names, else the machine's, else UTC."""
    named = environ.get("TZ", "").removeprefix(":")
    for candidate in (named, _linked_name(localtime)):
        zone = _known(candidate)
        if zone is not None:
            return zone
    try:
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return ZoneInfo("UTC")


def _known(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ValueError, OSError, KeyError):
        return None


def _linked_name(localtime: Path) -> str:
    """Read the zone's name off the link, as in ``…/zoneinfo/Europe/Berlin``."""
    try:
        target = localtime.resolve().as_posix()
    except OSError:
        return ""
    return target.partition("/zoneinfo/")[2]
