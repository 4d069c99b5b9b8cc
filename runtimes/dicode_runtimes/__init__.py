"""Runtimes: each turns a run of a task into a process to start."""
