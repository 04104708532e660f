"""The machine as the supervisor sees it: processes, trees, limits, walls, clocks.

Everything of the operating system goes through the protocol in `system`; `linux`, `portable` and
`fake` keep it. Nothing here knows of agents' states, rules or reports.
"""
