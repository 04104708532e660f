"""OpenTelemetry's protocol: from the wire to rows of the normal form, and back to an answer.

`items` is what the hub's routes still go through: spans as items.
"""
