"""Makes the generated parts of the documentation anew: ``make docs``.

Those parts stand in the pages between ``<!-- generated: … -->`` and its end; all else in a page is
written by hand. ``--check`` writes nothing and names the pages that are out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from sections import codes, commands, escapes, fields, sdk, status, tools
from sections.markdown import Section, splice

ROOT = Path(__file__).resolve().parent.parent

SECTIONS: Mapping[str, Section] = {
    "task-fields": fields.task_fields,
    "config-fields": fields.config_fields,
    "tools-overview": tools.overview,
    "toolsets": tools.toolsets,
    "tools": tools.tools,
    "tool-shapes": tools.shapes,
    "resources": tools.resources,
    "prompts": tools.prompts,
    "instructions": tools.instructions,
    "cli-everywhere": commands.everywhere,
    "cli-commands": commands.commands,
    "sdk-names": sdk.names,
    "sdk-methods": sdk.methods,
    "sdk-not-offered": sdk.not_offered,
    "sdk-permissions": sdk.permissions,
    "ipc-methods": sdk.wire_methods,
    "error-codes": codes.error_codes,
    "run-statuses": codes.run_statuses,
    "reasons": codes.reasons,
    "conditions": codes.conditions,
    "run-triggers": codes.triggers,
    "in-force": status.in_force,
    "manifest-gaps": status.manifest_gaps,
    "deno-gaps": status.deno_gaps,
    "config-gaps": status.config_gaps,
    "sdk-gaps": status.sdk_gaps,
    "escapes": escapes.tries,
}


def pages() -> Iterator[Path]:
    """Give every page that may hold generated parts."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` give 1 when one is out of date."""
    stale = 0
    for page in pages():
        text = page.read_text(encoding="utf-8")
        made = splice(text, SECTIONS)
        if made == text:
            continue
        stale += 1
        name = page.relative_to(ROOT)
        if "--check" in arguments:
            print(f"{name} is out of date; run: make docs")
        else:
            page.write_text(made, encoding="utf-8")
            print(f"{name} written")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
