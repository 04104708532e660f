"""Decisions about model calls: what is asked, who may, at what price, by whom it is answered, what then.

Pure, like all of `core`: facts and `now` in, a frozen decision with its reason out.
"""
