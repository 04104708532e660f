"""What travels between processes: item kinds, their fields, limits and the codec.

Standard library only, because the SDK speaks it inside the agent. Unknown fields
survive a round trip, so that an old hub keeps what a new agent says.
"""
