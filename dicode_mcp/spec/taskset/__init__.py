"""TaskSets: files that compose tasks from folders, repositories and other TaskSets (SPEC 2)."""
