"""Doubles for the slow things: an in-memory store, a clock that is moved by hand."""
