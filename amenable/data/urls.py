"""Files behind URLs (s3://, gs://, https://, hf:// ...), read by fsspec as streams: nothing of them is copied first.

A path whose slashes a `Path` has folded, as in s3:/bucket/texts, is the URL it was, unless it exists.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from amenable import hash_cache
from amenable.errors import InputError

if TYPE_CHECKING:
    LocalPath = Path
else:
    LocalPath = type(Path())
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")
"""at least two letters: one is a drive of Windows"""
INSTALLED = ("s3", "gs", "gcs", "http", "https")
"""protocols of the extra `urls`; fsspec names the packages of others"""
CHECKS = ("ETag", "etag", "md5Hash", "md5", "Content-MD5", "Digest", "sha256", "blob_id")
TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "modified", "mtime", "created")
"""names that file systems have for a hash of a file's content, and for the time of its last change"""


class UrlPath(LocalPath):
    """A file, folder or pattern of files behind a URL."""

    def __str__(self) -> str:
        return unfold(super().__str__())


def unfold(text: str) -> str:
    """Return a URL whose two slashes were folded into one as it was, and any other text as it is."""
    match = SCHEME.match(text)
    return f"{match[1]}://{text[match.end() :]}" if match else text


def to_path(text: str | Path) -> Path:
    """Return the path that a user names: a UrlPath for a URL."""
    path = Path(text)
    return UrlPath(path) if SCHEME.match(path.as_posix()) and not path.exists() else path


@contextmanager
def url_errors(url: str | Path) -> Iterator[None]:
    """Turn what a file system raises into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each file system has errors of its own
        missing = isinstance(error, FileNotFoundError)
        problem = "no such file or folder" if missing else f"cannot be read ({type(error).__name__}: {error})"
        raise InputError(
            " ".join(problem.split())[:300], url, "check the address, the connection, and your rights there"
        ) from None


def file_system(url: str | Path) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the URL's path in it. InputError where a package is missing."""
    scheme = str(url).partition(":")[0]
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(str(url))
        return fs, path
    except ImportError as error:
        hint = "pip install 'amenable[urls]'" if scheme in INSTALLED else "pip install it"
        raise InputError(f"{scheme}:// needs a package of its own ({error})", url, hint) from None
    except ValueError as error:
        raise InputError(f"{scheme}:// is no address that fsspec reads ({error})", url, "check the address") from None


def list_urls(url: Path) -> list[tuple[Path, str]]:
    """List the files of a URL in order: a file, those of a folder, or of a pattern with *; each with its path below the
    folder, "" for a file. InputError where there is none."""
    with url_errors(url):
        fs, path = file_system(url)
        fs.invalidate_cache()
        if "*" in path:
            names, root = list(fs.glob(path)), path.partition("*")[0].rpartition("/")[0]
        elif fs.isfile(path):
            names, root = [path], path
        else:
            names, root = list(fs.find(path)), path
        if not names:
            raise FileNotFoundError(path)
        return [(UrlPath(fs.unstrip_protocol(name)), name.removeprefix(root).strip("/")) for name in sorted(names)]


def open_raw(file: Path) -> IO[bytes]:
    """Open a file to read its bytes as they are, on this machine or behind a URL."""
    if not isinstance(file, UrlPath):
        return file.open("rb")
    with url_errors(file):
        fs, path = file_system(file)
        return io.BufferedReader(UrlStream(fs.open(path, "rb"), file), 1 << 20)


class UrlStream(io.RawIOBase):
    """Bytes of a file behind a URL; whatever fails while they are read is an InputError."""

    def __init__(self, stream: Any, url: Path):
        self.stream, self.url = stream, url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self.stream.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return int(self.stream.seek(offset, whence))

    def tell(self) -> int:
        """Return the position."""
        return int(self.stream.tell())

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with the next bytes, and return their number; 0 at the end of the file."""
        with url_errors(self.url):
            part = self.stream.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.stream.close()
        super().close()


def state_of(file: Path) -> dict[str, Any]:
    """Return what tells that a file has not changed, "bytes" its size: `hash_cache.file_state`; behind a URL the hash
    that its file system has of the content, or else the time of its last change."""
    if not isinstance(file, UrlPath):
        return hash_cache.file_state(file)
    with url_errors(file):
        fs, path = file_system(file)
        fs.invalidate_cache()
        info = fs.info(path)
    version = next((str(info[name]) for name in (*CHECKS, *TIMES) if info.get(name)), "")
    return {"bytes": info.get("size") or 0, "version": version}


def size_of(file: Path) -> int:
    """Return the bytes of a file; 0 where the file system behind a URL does not say."""
    return int(state_of(file)["bytes"]) if isinstance(file, UrlPath) else file.stat().st_size


def content_hash(file: Path) -> str:
    """Return the sha256 of a file; behind a URL that of its address and state, since it is not read for it."""
    if not isinstance(file, UrlPath):
        return hash_cache.cached_sha256(file)
    return hashlib.sha256(json.dumps([str(file), state_of(file)]).encode()).hexdigest()
