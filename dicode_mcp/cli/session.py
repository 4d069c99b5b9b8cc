"""What every command is given: where things lie, where to write, and a way to call the server."""

from __future__ import annotations

from typing import Any, NamedTuple

from dicode_mcp.cli.client import Client
from dicode_mcp.cli.places import Places
from dicode_mcp.cli.render import Terminal


class Session(NamedTuple):
    """One call of the command line. ``as_json`` asks for the server's result untouched."""

    places: Places
    terminal: Terminal
    as_json: bool = False

    def connect(self) -> Client:
        """Open a connection; raises ``DicodeError(UNREACHABLE)`` when no server runs."""
        return Client.connect(self.places.socket)

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Make one call on a connection of its own; arguments that are None are left out."""
        given = {key: value for key, value in arguments.items() if value is not None}
        with self.connect() as client:
            return client.call(tool, given)
