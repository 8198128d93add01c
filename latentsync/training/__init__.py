"""Training: loops that fit a time budget, the synthetic batches they eat, and the files they leave behind."""
