"""What agents print, from the pipe to the file, and what a person would see of it on a terminal."""
