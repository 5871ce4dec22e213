"""Static files: each application serves its own pages and the files that all pages share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response

FOLDER = Path(__file__).parent / "pages"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SHARED = ("base.css", "elements.js", "requests.js", "icon.svg")
"""files of every application"""


def static_routes(pages: Mapping[str, str], *files: str) -> dict[str, str]:
    """Return the file of each path: pages by their path, further and shared files by their name, and the icon that
    browsers request unasked."""
    return {**pages, **{f"/{name}": name for name in (*files, *SHARED)}, "/favicon.ico": "icon.svg"}


def add_static(app: FastAPI, routes: Mapping[str, str]) -> None:
    """Add routes that serve the files of `static_routes`, each read once."""
    for path, name in routes.items():
        media_type = f"{MEDIA_TYPES[Path(name).suffix]}; charset=utf-8"
        app.add_api_route(path, constant((FOLDER / name).read_bytes(), media_type), include_in_schema=False)


def constant(content: bytes, media_type: str) -> Callable[[], Response]:
    """Return a route that always sends this content."""
    return lambda: Response(content, media_type=media_type)
