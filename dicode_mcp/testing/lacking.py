"""What a test does when the machine lacks a part it needs: skip, but never in CI."""

from __future__ import annotations

import os
from typing import NoReturn


def lacking(why: str) -> NoReturn:
    """Skip the test; in CI fail it, since ``.ci/run`` must have installed the part."""
    import pytest

    if os.environ.get("CI") == "true":
        pytest.fail(f"{why}; .ci/run must see to it")
    pytest.skip(why)
