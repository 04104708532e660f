"""The seam to providers: `port` says what is asked of it, `wire` does it, `scripted` plays it for tests."""
