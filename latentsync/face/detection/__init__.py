"""Face detectors and the landmarks they deliver."""
