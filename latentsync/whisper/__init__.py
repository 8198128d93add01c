"""Speech features: log-mel spectrogram, Whisper encoder, and one feature window per video frame."""
