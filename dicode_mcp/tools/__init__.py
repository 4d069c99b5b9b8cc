"""MCP: tools, notifications and transports. Translates; decides nothing."""
