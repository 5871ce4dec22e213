from amenable.serve.errors import APIError


def test_an_error_is_its_message_and_has_no_header_by_default() -> None:
    error = APIError(429, "busy", code="overloaded", retry_after=3)
    assert (str(error), error.status, error.param, error.code, error.retry_after) == (
        "busy",
        429,
        None,
        "overloaded",
        3,
    )
    assert APIError(404, "none").retry_after == 0
