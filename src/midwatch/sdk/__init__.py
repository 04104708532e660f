"""What runs inside an agent: it tells the hub and the supervisor what the agent does.

Standard library only. It never raises, never waits, and does nothing when no hub is named.
`import midwatch as mw` is its public face; the modules here are its rooms.
"""
