"""The server as a program, with the public URLs of the documents served by a test's git server.

The first argument is a file with the map of URLs; the rest are the server's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dicode_mcp import daemon, house
from dicode_mcp.testing.mapped_git import mapped_git

if __name__ == "__main__":
    house.GitCheckouts = mapped_git(json.loads(Path(sys.argv[1]).read_text()))
    sys.exit(daemon.main(sys.argv[2:]))
