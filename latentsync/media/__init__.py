"""Reading and writing of video and audio files, and the mapping from output frames to source frames."""
