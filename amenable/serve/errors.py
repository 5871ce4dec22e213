"""The exception for requests that are answered with an HTTP error; each application renders it in its own JSON."""

from __future__ import annotations


class APIError(Exception):
    """An HTTP error: `status`, a message for the client, and what OpenAI's clients read of it.

    param: the field of the request that is wrong. code: a machine-readable name. retry_after: seconds, 0 for no header.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry_after: int = 0
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after
