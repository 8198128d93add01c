"""Reading, identifying, loading and writing weights files."""
