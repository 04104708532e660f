"""Telemetry on to other back-ends, by OTLP over HTTP: each with a queue of its own on the disk."""
