"""Measures of what the pipeline makes."""
