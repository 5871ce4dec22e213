"""The login route, the same for every application: a token is exchanged for a cookie that scripts cannot read.

(Annotations are evaluated here, not kept as text: FastAPI reads those of the route.)
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import Field

from amenable.serve.errors import APIError
from amenable.serve.openai.errors import Json
from amenable.serve.openai.fields import Body
from amenable.serve.security import cookie

TOKEN = re.compile(r"[A-Za-z0-9_-]+")


class LoginRequest(Body):
    token: Annotated[str, Field(max_length=200)]


def add_login(
    app: FastAPI, path: str, find_user: Callable[[str], Mapping[str, str] | None], secure: bool = False
) -> None:
    """Add POST `path`: a known token sets the cookie, an unknown one is a 401.

    `find_user` maps a token to facts on its user, None where the token is unknown. The facts are the JSON answered;
    without any it is 204 No Content. The cookie is Secure with `secure` and over https.
    """

    @app.post(path)
    def login(body: LoginRequest, request: Request) -> Response:
        user = find_user(body.token) if TOKEN.fullmatch(body.token) else None
        if user is None:
            raise APIError(401, "this token is not known here")
        headers = {"set-cookie": cookie(body.token, secure or request.url.scheme == "https")}
        return Json(user, headers=headers) if user else Response(status_code=204, headers=headers)
