"""Where weights files come from, where they lie, and how they are fetched."""
