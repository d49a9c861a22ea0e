"""What can keep Gantry from starting.

CannotStart     something foreseeable is in the way: one line, with the remedy
EndAsked        not a fault: how Ctrl-C and SIGTERM leave the preparations
"""

from __future__ import annotations


class CannotStart(Exception):
    """Something foreseeable is in the way; `str(exc)` is one line that says what to do."""


class EndAsked(BaseException):
    """Ctrl-C or SIGTERM arrived before the processes ran. Not an Exception, so that nothing on the way swallows it."""
