"""LatentSync: give it a talking-head video and a speech track, get the same video speaking those words."""
