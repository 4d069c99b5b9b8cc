from githouse import git, open_checkouts

__all__ = ["git", "open_checkouts"]
