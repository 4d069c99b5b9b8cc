"""What starts runs by itself. A trigger makes RunRequests and nothing else."""
