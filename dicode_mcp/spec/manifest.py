"""The effective manifest of a task in the file's own form: what surfaces show as ``spec``.

Values of the environment are those of the file; a webhook's secret is masked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from dicode_mcp.spec.model import TaskSpec, is_endless
from dicode_mcp.spec.quantities import format_duration
from dicode_mcp.spec.templates import has_placeholder

MASK = "***"

_SHOWN_DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "cron": ("catchup",),
    "webhook": ("methods", "mode", "auth"),
    "chain": (),
    "manual": (),
    "daemon": ("restart",),
}


def spec_json(spec: TaskSpec) -> str:
    """Give the canonical JSON of a spec: equal specs, equal text. Holds secrets; not for show."""
    return json.dumps(
        spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )


def render_manifest(spec: TaskSpec) -> dict[str, Any]:
    """Write a spec as a manifest that says the same: what was written, and defaults that matter.

    Nothing is null, but for a ``timeout`` that was switched off where there would be one.
    """
    out: dict[str, Any] = spec.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_unset=True
    )
    out["trigger"] = _trigger(spec, out["trigger"])
    if spec.timeout is not None:
        out["timeout"] = format_duration(spec.timeout)
    elif not is_endless(spec.runtime, spec.trigger.kind):
        out["timeout"] = None
    if spec.permissions.fs:
        out["permissions"]["fs"] = [grant.model_dump(mode="json") for grant in spec.permissions.fs]
    chain = spec.on_failure_chain
    if chain is not None and not chain.params:
        out["on_failure_chain"] = chain.task
    return {key: out[key] for key in TaskSpec.keys() if key in out}


def _trigger(spec: TaskSpec, dumped: dict[str, Any]) -> dict[str, Any]:
    trigger = spec.trigger
    out = dict(dumped)
    whole = trigger.model_dump(mode="json", by_alias=True)
    for name in _SHOWN_DEFAULTS[trigger.kind]:
        out[name] = whole[name]
    if trigger.chain is not None:
        out["chain"] = _chain(cast(dict[str, Any], whole["chain"]))
    if isinstance(trigger.webhook_secret, str):
        # a placeholder left in place is no secret, and shows what is missing
        unresolved = has_placeholder(trigger.webhook_secret)
        out["webhook_secret"] = trigger.webhook_secret if unresolved else MASK
    return out


def _chain(chain: dict[str, Any]) -> dict[str, Any]:
    sources = chain["from"]
    return {**chain, "from": sources[0] if len(sources) == 1 else sources}
