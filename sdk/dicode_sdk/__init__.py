"""The SDK inside a task."""
