"""Webhooks: which task a path starts, what proves a sender, and what a body means. No HTTP here."""
