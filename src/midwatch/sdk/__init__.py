"""What runs inside an agent: it tells the hub and the supervisor what the agent does.

Standard library only. It never raises, never waits, and does nothing when no hub is named;
but `spawn` fails as `subprocess.Popen` does, and a tool that has a timeout raises ToolTimeout.
`import midwatch as mw` is its public face; the modules here are its rooms.
"""
