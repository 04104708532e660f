"""HTTP/1.1 of our own: `port` says what a handler is given, `played` plays it for tests."""
