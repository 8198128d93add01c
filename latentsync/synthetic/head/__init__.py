"""The synthetic head: portraits, displacement fields, layers and renderer."""
