"""The loops that start runs by themselves: time, daemons, and what keeps chains in order."""
