"""What a configuration may say and this build does not act on yet; one row per key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicode_mcp.config.model import Config

TABLE: tuple[tuple[str, Callable[[Config], object]], ...] = (
    (
        "sources[].max_files and sizes: acted on for git, not for local sources",
        lambda c: any(
            s.type == "local"
            and s.model_fields_set & {"max_files", "max_file_size", "max_total_size"}
            for s in c.sources
        ),
    ),
    ("database: this build keeps its state in SQLite only", lambda c: c.database.type != "sqlite"),
    (
        "defaults: timeout is not applied by this build",
        lambda c: "timeout" in c.defaults.model_fields_set,
    ),
    (
        "runtimes[].path: not used by this build; enabled is",
        lambda c: any(r.path for r in c.runtimes.values()),
    ),
    ("ai: not used by this build", lambda c: "ai" in c.model_fields_set),
    ("workers: every run is on this machine", lambda c: "workers" in c.model_fields_set),
)


def sentences(config: Config) -> list[str]:
    """Give a sentence for each key that is set and has no effect."""
    return [sentence for sentence, declared in TABLE if declared(config)]
