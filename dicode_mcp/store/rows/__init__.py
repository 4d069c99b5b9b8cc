"""Statements by noun: each function does its part on a connection, inside the caller's transaction.

They know tables and values, and nothing of threads, files or a particular database.
"""
