"""Telemetry in one normal form, and what is decided about it.

`form` is what travels from ingest to the stores; `dialect` is how an emitter's names become that form; `store` and
`questions` are the seams to whatever keeps it and answers from it. Nothing here does I/O or has a clock.
"""
