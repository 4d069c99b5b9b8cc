"""Git work trees that people and agents edit: clones of a branch, commits, pushes.

What git itself does runs in a helper process with limits; nothing of the user's (hooks, filters,
signing programs, credential helpers) ever runs.
"""
