"""Evaluation runs over data sets."""
