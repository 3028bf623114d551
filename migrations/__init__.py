"""The source of truth for the schema: revisions, the snapshot, the deploy."""
