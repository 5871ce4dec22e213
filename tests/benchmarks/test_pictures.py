"""Pictures of pages: of the wanted size, and nothing that is not there."""

import shutil
import struct
from pathlib import Path

import pytest

from amenable.errors import InputError
from benchmarks import pictures


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, pictures.BROWSERS)), reason="there is no browser here")
def test_a_page_becomes_a_picture_of_its_size(tmp_path: Path) -> None:
    page, out = tmp_path / "page.html", tmp_path / "docs" / "page.png"
    page.write_text("<h1 style='background: red'>Before, after</h1>")
    sizes = []
    for height in (600, 700):
        pictures.main(str(page), out, width=800, height=height)
        data = out.read_bytes()
        assert data.startswith(b"\x89PNG")
        sizes.append(struct.unpack(">II", data[16:24]))
    assert sizes == [(800, 600), (800, 700)]
    page.write_text("<style>body { margin: 0 }</style><p style='height: 2000px'></p><b style='color: red'>After</b>")
    pictures.main(str(page), out, width=800, height=700)
    blank = out.read_bytes()
    pictures.main(str(page), out, width=800, height=700, at="b")
    assert out.read_bytes() != blank, "what was below the picture is at its top"


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures.shutil, "which", lambda name: "/usr/bin/browser")
    with pytest.raises(InputError, match="no such page"):
        pictures.main(str(tmp_path / "none.html"), tmp_path / "page.png")
    with pytest.raises(InputError, match="100 x 900"):
        pictures.main(str(tmp_path / "none.html"), tmp_path / "page.png", width=100)
    monkeypatch.setattr(pictures.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="no browser"):
        pictures.main("http://127.0.0.1:1", tmp_path / "page.png")
    assert not (tmp_path / "page.png").exists()
