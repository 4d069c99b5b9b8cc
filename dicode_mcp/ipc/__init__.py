"""The talk with a running task: frames on a socket, each call checked against its grants."""
