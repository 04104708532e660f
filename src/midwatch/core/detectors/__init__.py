"""One file per failure of the catalogue; `core.detection.load` finds them.

Severity means the same in all of them: `critical`, a person is needed; `warning`, something broke and
was dealt with, look in the morning; `info`, worth knowing.
"""
