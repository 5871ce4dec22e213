"""Pictures of pages for the documents, as headless Chromium draws them.

    python -m benchmarks.pictures runs/real/report.html docs/real.png
    python -m benchmarks.pictures runs/real/report.html docs/real_table.png --at .figures --width 960 --height 1060
    python -m benchmarks.pictures http://127.0.0.1:8000 docs/chat.png --height 800

A page is a file, such as a report, or the address of one that is served.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import tyro

from amenable.errors import InputError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CUT = "document.body.style.marginTop = `${24 - e.getBoundingClientRect().top - scrollY}px`;"
"""moves a page up, so that it begins at the element e"""
LEAST = 500
"""pixels: the narrowest window of a headless browser"""
SECONDS = 60.0


def main(
    page: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    width: int = 1280,
    height: int = 900,
    at: str = "",
) -> None:
    """Draw the top of a page as a PNG file. InputError for a page that is not there, and without a browser.

    page: file or address. width, height: of the window, in pixels. at: CSS selector of the element that the picture
    begins at, of a file.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise InputError("there is no browser to draw with", how=f"install one of {', '.join(BROWSERS)}")
    if min(width, height) < LEAST:
        raise InputError(f"the picture is {width} x {height} pixels", how=f"give {LEAST} or more of each")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        address = page if page.startswith("http") else file_address(Path(page), at, Path(folder))
        options = [f"--user-data-dir={folder}", f"--window-size={width},{height}", f"--screenshot={out.resolve()}"]
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options, address]
        before = out.stat().st_mtime_ns if out.exists() else None
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if not out.exists() or out.stat().st_mtime_ns == before:
        raise InputError("the browser drew nothing", address, done.stderr.strip()[-300:])


def file_address(path: Path, at: str, folder: Path) -> str:
    """Return the address of a file, or of a copy in `folder` without what is before the element `at`. InputError for a
    file that is not there."""
    if not path.is_file():
        raise InputError("no such page", path, "name a file, or an address that begins with http")
    if not at:
        return path.resolve().as_uri()
    copy = folder / path.name
    script = f"const e = document.querySelector({json.dumps(at)}); {CUT}"
    copy.write_text(f"{path.read_text('utf-8')}<script>{script}</script>", "utf-8")
    return copy.as_uri()


if __name__ == "__main__":
    tyro.cli(main)
