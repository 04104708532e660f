"""Decides. No I/O, no threads, no clock of its own: facts and `now` in, a decision with its reason out."""
