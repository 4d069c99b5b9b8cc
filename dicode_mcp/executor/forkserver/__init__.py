"""Warm interpreters that become a run by a fork: which there are, and how one is asked."""
