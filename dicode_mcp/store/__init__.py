"""What is kept: runs, logs, kv, schedules, audit. One outside system: the database."""
