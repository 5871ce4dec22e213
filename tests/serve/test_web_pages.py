"""Static files: every application serves its pages with what all pages share, and each file in its own type."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from amenable.serve.battles import routes as arena_routes
from amenable.serve.labelling import routes as label_routes
from amenable.serve.openai import api
from amenable.serve.web_pages import FOLDER, SHARED, add_static, static_routes


@pytest.mark.parametrize("routes", [api.FILES, arena_routes.FILES, label_routes.FILES])
def test_whatever_a_page_loads_is_served_beside_it(routes: dict[str, str]) -> None:
    app = FastAPI()
    add_static(app, routes)
    client = TestClient(app)
    for path, name in routes.items():
        reply = client.get(path)
        assert reply.status_code == 200 and reply.content == (FOLDER / name).read_bytes()
        text = reply.text
        wanted = re.findall(r'(?:src|href)="(/[\w.-]+\.\w+)"', text) + re.findall(r'from "\.(/[\w.-]+)"', text)
        assert set(wanted) <= set(routes), f"{name} loads what is not there"


def test_routes_name_pages_files_and_the_icon() -> None:
    routes = static_routes({"/": "chat.html"}, "chat.js")
    assert routes["/"] == "chat.html" and routes["/chat.js"] == "chat.js" and routes["/favicon.ico"] == "icon.svg"
    assert {f"/{name}" for name in SHARED} <= set(routes)


def test_no_file_of_the_folder_is_left_unserved() -> None:
    served = {name for routes in (api.FILES, arena_routes.FILES, label_routes.FILES) for name in routes.values()}
    assert served == {path.name for path in FOLDER.iterdir()}
