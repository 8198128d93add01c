"""Training clips on disk: lists, reading, inspection, caching."""
