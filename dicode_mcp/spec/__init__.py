"""The manifest of a task: read strictly, checked whole, resolved to a frozen ``Task``."""
