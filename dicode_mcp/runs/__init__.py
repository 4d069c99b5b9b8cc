"""Runs as values: what a run is, how its status may move, what follows from its end."""
