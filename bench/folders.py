"""Folders of tasks to measure with."""

from __future__ import annotations

from pathlib import Path

_MANIFEST = """\
name: Report {number}
description: Sums up the sales of one region and posts the figures.
runtime: python
tags: [sales, region-{region}]
trigger:
  manual: true
params:
  region:
    type: string
    default: north
  days:
    type: number
    default: 7
timeout: 2m
permissions:
  env: [LANG]
  net: [api.example.org]
"""

_SCRIPT = '''\
"""Sum up the sales of one region."""


def main(params):
    days = int(params.get("days"))
    figures = [day * {number} for day in range(days)]
    return {{"region": params.get("region"), "total": sum(figures)}}
'''

HELLO_MANIFEST = """\
name: Hello
runtime: python
trigger:
  manual: true
"""

HELLO_SCRIPT = """\
def main():
    return "hello"
"""

FLOOD_MANIFEST = """\
name: Flood
runtime: python
trigger:
  manual: true
params:
  lines:
    type: number
    default: 1000
timeout: 2m
"""

FLOOD_SCRIPT = """\
import sys


def main(params):
    total = int(params.get("lines"))
    step = 100
    for first in range(0, total, step):
        many = range(first, min(first + step, total))
        sys.stdout.write("".join(f"line {n:08d} of a task that prints all it can\\n" for n in many))
    return total
"""


def write_task(root: Path, name: str, manifest: str, script: str) -> Path:
    """Make one task; gives its folder."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(manifest)
    (folder / "task.py").write_text(script)
    return folder


def write_reports(root: Path, number: int) -> None:
    """Make ``number`` ordinary tasks: a manifest of some twenty lines and a short script each."""
    for each in range(number):
        manifest = _MANIFEST.format(number=each, region=each % 16)
        write_task(root, f"report-{each:05d}", manifest, _SCRIPT.format(number=each))
