"""Small programs that misbehave for real. Each writes what it did into DRILL_DIR."""
