"""Git repositories as sources: mirrors, checkouts that never change, polls and pushes.

All talk with remotes and all reading of what they send happens in ``worker``, a process with
limits; the server's side (``checkouts``, ``source``) never imports a git library.
"""
