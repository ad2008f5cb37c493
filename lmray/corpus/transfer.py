"""One HTTP request for what is still missing of a file."""

import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any, Literal

from lmray.errors import CorruptionError, PreflightError
from lmray.progress import Progress
from lmray.storage import read_json, write_json

_TIMEOUT_SECONDS = 30
_BLOCK = 1 << 18
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class Cut(Exception):
    """A transfer that did not come to its end; `hopeless` if asking again would not help."""

    def __init__(self, reason: str, *, hopeless: bool = False) -> None:
        """`reason` is what the user gets to read."""
        super().__init__(reason)
        self.hopeless = hopeless


class Part:
    """The bytes of a file fetched so far, and the mark by which the server knows its version."""

    def __init__(self, path: Path) -> None:
        """For the file that is to be at `path`; nothing is written yet."""
        self.path = path.with_name(path.name + ".part")
        self._record = path.with_name(path.name + ".part.json")

    @property
    def size(self) -> int:
        """Bytes fetched so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def mark(self, url: str) -> str:
        """The mark of the bytes at hand, or the empty text if they cannot be gone on with."""
        if not self.size or not self._record.exists():
            return ""
        record = read_json(self._record)
        return record["mark"] if record["url"] == url else ""

    def open(self, url: str, mark: str, *, start: int) -> IO[bytes]:
        """The file, cut off at `start` and open for appending."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if start == 0:
            self.discard()
        write_json(self._record, {"url": url, "mark": mark})
        file = self.path.open("ab")
        file.truncate(start)
        return file

    def discard(self) -> None:
        """Removes what there is."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)


def fetch_rest(
    url: str, part: Part, *, expected_bytes: int | Literal["unknown"], progress: Progress
) -> str:
    """Appends to `part` until it is the whole file; returns the hash the server names, or "".

    Starts afresh if the file has changed since or the server sends no ranges. Raises Cut where the
    transfer ends early.
    """
    mark = part.mark(url)
    start = part.size if mark else 0
    headers = {"User-Agent": "lmray"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": mark}
    redirects = _Redirects()
    try:
        response = urllib.request.build_opener(redirects).open(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
                return redirects.linked_hash
            if error.code == 416:
                part.discard()
            again = error.code in _AGAIN or error.code == 416
            raise Cut(f"HTTP {error.code} {error.reason}", hopeless=not again) from error
    except (OSError, http.client.HTTPException) as error:
        # Where nothing has come yet there is most likely no network; waiting would only hide that.
        reason = getattr(error, "reason", error)
        raise Cut(f"no connection: {reason}", hopeless=not part.size) from error

    with response:
        if response.status != 206:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0
        _check_size(url, part, total, expected_bytes, start)
        with part.open(url, _mark(response.headers), start=start) as file:
            _receive(response, file, total, progress)
    return redirects.linked_hash or _linked_hash(response.headers)


def _receive(response: Any, file: IO[bytes], total: int, progress: Progress) -> None:
    position = file.seek(0, 2)
    while True:
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise Cut(f"connection lost after {position:,} bytes: {error}") from error
        if not block:
            break
        file.write(block)
        position += len(block)
        progress("download", position, max(total, position), "bytes")
    if position < total:
        raise Cut(f"connection lost after {position:,} of {total:,} bytes")


def _check_size(
    url: str, part: Part, total: int, expected_bytes: int | Literal["unknown"], start: int
) -> None:
    if total and expected_bytes not in ("unknown", total):
        raise CorruptionError(
            f"{url} has {total:,} bytes, but {expected_bytes:,} were expected: it was changed or "
            f"is another file; check the address or update lmray"
        )
    existing = next(parent for parent in part.path.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if total - start > free:
        raise PreflightError(
            f"{url} needs {total - start:,} more bytes, but {existing} has only {free:,} free; "
            f"make room there or choose another folder"
        )


def _mark(headers: Any) -> str:
    """A strong ETag, or else the date of change: what If-Range accepts."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _linked_hash(headers: Any) -> str:
    """The SHA-256 by which Hugging Face links to a large file.

    Its ETag is not read: past the redirect that is the storage's own, often of another kind.
    """
    return headers.get("X-Linked-ETag", "").strip('"')


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and remembers the hash that the first answer named."""

    linked_hash = ""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Called for each redirect."""
        self.linked_hash = self.linked_hash or _linked_hash(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
