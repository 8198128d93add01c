"""The synthetic head: portraits, displacement fields, layers, renderer."""
