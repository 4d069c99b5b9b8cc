"""Secret values: sealing them, the master key, and keeping them out of what is shown."""
