"""dicode-mcp: the automation server that AI agents drive."""

__version__ = "0.1.0"
