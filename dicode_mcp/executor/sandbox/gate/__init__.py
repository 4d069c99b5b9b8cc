"""The network gate: what a run may connect to, host by host."""
