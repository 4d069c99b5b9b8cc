"""Tasks that come with dicode-mcp."""
