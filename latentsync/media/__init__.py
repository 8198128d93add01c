"""Reading and writing of video and audio files, and the plan of which source frame each output frame shows."""
