"""What the chat can refuse.

SendRefused      a question was not taken; nothing was written
"""

from __future__ import annotations


class SendRefused(Exception):
    """A question was not taken. `str(exc)` is a sentence for people; `status` is for HTTP."""

    def __init__(self, sentence: str, status: int = 409) -> None:
        super().__init__(sentence)
        self.status = status
