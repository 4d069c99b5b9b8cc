"""Processes: starting them, reading their output, ending their whole tree."""
