"""What turns this repository into a contribution to SpeechBrain."""
