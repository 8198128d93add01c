"""Training clips on disk: lists, readers, inspection, caches."""
