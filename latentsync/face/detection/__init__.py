"""Face detectors and their landmarks."""
