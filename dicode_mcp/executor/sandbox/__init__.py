"""The cage of a run, as the server sees it: what the machine can do, and a plan for each launch."""
