"""Failure drills: prove on this machine, tonight, that the alarms work.

A drill starts a private instance in a temporary directory, runs a small program that really
misbehaves, and checks that the incident came in time, says the right thing, and that the right thing
was done. Control drills misbehave in no way that matters, and nothing may fire.
"""
