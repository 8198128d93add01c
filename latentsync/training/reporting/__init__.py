"""Charts and image sheets of a training run."""
