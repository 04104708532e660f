"""What runs, by which right and as which version; and what becomes of it when the file changes."""
