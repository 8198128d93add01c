"""Process-level helpers: transfers, allocator settings, random state, worker pools."""
