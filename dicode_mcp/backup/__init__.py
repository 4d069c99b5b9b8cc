"""Backups of a data dir: one archive of what cannot be made anew, and the master key apart.

A process of its own (``python -m dicode_mcp.backup``), beside a running server or without one.
"""
