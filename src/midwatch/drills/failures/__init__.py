"""One file per failure: what it is, how it is set up, and what must happen."""
