"""The command line: a thin MCP client over the local socket, standard library only."""
