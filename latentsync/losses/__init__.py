"""Training losses: one class each, combined by weight into the objective of a run."""
