"""Download one large file so that it is either whole and right, or not there.

Bytes go to ``<name>.part`` beside the target, so that a broken-off download goes on where it stopped, in the next
attempt as in the next run. The target's name appears only after its SHA-256 was found right.
"""

import hashlib
import http.client
import logging
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from latentsync.errors import CheckpointError

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_TRANSIENT_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


@dataclass(frozen=True)
class DownloadOptions:
    """How patient a download is.

    Raises:
        ValueError: a number is out of range.
    """

    attempts: int = 5
    """Tries per address in which less than 1 MiB arrived; a try that got further does not count."""
    backoff: float = 1.0
    """Seconds before the second try, doubled for each one after it."""
    timeout: float = 30.0
    """Seconds without a byte after which a connection counts as broken."""
    verify: bool = True
    """Refuse a file whose SHA-256 differs; False accepts it with a warning."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.backoff < 0 or self.timeout <= 0:
            raise ValueError(f"attempts must be at least 1, backoff not below 0 and timeout above 0, got {self}")


class _ConnectionLostError(Exception):
    """The connection ended before the file did."""


class _RefusedError(Exception):
    """The server answers that it will not give the file."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def download(
    urls: Sequence[str], target: Path, sha256: str, size: int | None = None, options: DownloadOptions | None = None
) -> None:
    """Fetch `target` from the first of `urls` that gives it whole and right.

    Args:
        urls: http(s) addresses of the same file, tried in this order.
        target: where it goes; folders are made.
        sha256: expected SHA-256, lower-case hex.
        size: expected bytes, when known; lets a full disk be noticed beforehand.
        options: patience and checking.

    Raises:
        CheckpointError: no address gave the right file, the disk is too small, or another process is fetching it.
    """
    options = options or DownloadOptions()
    for url in urls:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise CheckpointError(f"cannot fetch {target.name}: {url!r} is no http or https address")
    part = target.with_name(target.name + ".part")
    problems: list[str] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(part) as file:
            _check_space(part, size)
            whole = any(_try_url(url, file, part, sha256, options, problems) for url in urls)
        if whole:
            os.replace(part, target)
            return
        if part.stat().st_size == 0:
            part.unlink()
    except OSError as error:
        raise CheckpointError(f"cannot write {part}: {error}; what has arrived is kept and will be used") from error
    raise CheckpointError(
        f"cannot fetch {target.name}: {'; '.join(problems)}. Check the connection, set HF_ENDPOINT to a mirror, or put "
        f"the file there yourself: {target}"
    )


def _try_url(url: str, file: BinaryIO, part: Path, sha256: str, options: DownloadOptions, problems: list[str]) -> bool:
    """Complete `file` from `url` and return whether it is right; otherwise add to `problems`."""
    leftover = file.seek(0, os.SEEK_END) > 0
    try:
        _fetch_all(url, file, part.stem, options)
        if leftover and sha256_of(part) != sha256:
            # What lay there may be of another version of the file: only a fresh copy tells what the server has.
            file.truncate(0)
            _fetch_all(url, file, part.stem, options)
        _check_sha256(url, file, part, sha256, options)
    except (_ConnectionLostError, _RefusedError) as error:
        problems.append(f"{url}: {error}")
        logger.warning("%s: %s", url, error)
        return False
    return True


@contextmanager
def _exclusive(part: Path) -> Iterator[BinaryIO]:
    """Open the partial file for reading and appending, keeping other processes out where the system can."""
    with part.open("a+b") as file:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CheckpointError(f"cannot fetch into {part}: another process is doing so; wait for it") from error
        yield file


def _check_space(part: Path, size: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    needed = (size or 0) - part.stat().st_size
    if needed > free:
        raise CheckpointError(
            f"cannot fetch {part.stem}: {needed / 1e9:.1f} GB are still to come but the disk of {part.parent} has only "
            f"{free / 1e9:.1f} GB free; make room or choose another checkpoint folder"
        )


def _check_sha256(url: str, file: BinaryIO, part: Path, sha256: str, options: DownloadOptions) -> None:
    """Accept the partial file, or empty it and raise."""
    found = sha256_of(part)
    if found == sha256:
        return
    if not options.verify:
        logger.warning("%s: SHA-256 is %s, not the known %s; accepted unverified", url, found, sha256)
        return
    size = part.stat().st_size
    file.truncate(0)
    raise _RefusedError(f"gave another file: {size} bytes with SHA-256 {found}, expected {sha256}")


def _fetch_all(url: str, file: BinaryIO, name: str, options: DownloadOptions) -> None:
    """Append to `file` until the server says that it is complete, retrying what may pass."""
    fruitless = 0
    while True:
        before = file.seek(0, os.SEEK_END)
        try:
            _fetch_rest(url, file, name, options.timeout)
            file.flush()
            return
        except urllib.error.HTTPError as error:
            if error.code not in _TRANSIENT_STATUS:
                raise _RefusedError(f"the server answered {error.code} {error.reason}") from error
            reason: Exception = error
        except (*_TRANSIENT_ERRORS, _ConnectionLostError) as error:
            reason = error
        fruitless = 0 if file.seek(0, os.SEEK_END) - before >= _BLOCK else fruitless + 1
        if fruitless >= options.attempts:
            raise _ConnectionLostError(f"gave up after {fruitless} tries ({reason})") from reason
        logger.info("%s: %s; going on at byte %d", url, reason, file.seek(0, os.SEEK_END))
        time.sleep(options.backoff * 2 ** max(0, fruitless - 1))


def _fetch_rest(url: str, file: BinaryIO, name: str, timeout: float) -> None:
    """Make one request for what is missing at the end of `file` and append what comes."""
    offset = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "latentsync", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{offset}":
            return
        file.truncate(0)
        raise _ConnectionLostError("the partial file is longer than the server's; starting again") from error
    with response:
        if offset and not _continues_at(response, offset):
            file.truncate(0)
            offset = 0
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length is not None else None
        _copy(response, file, offset, total, name)


def _continues_at(response: http.client.HTTPResponse, offset: int) -> bool:
    """Whether the answer begins at byte `offset`; a server that knows no ranges answers 200 with the whole file."""
    span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and span is not None and int(span[1]) == offset


def _copy(response: http.client.HTTPResponse, file: BinaryIO, offset: int, total: int | None, name: str) -> None:
    with tqdm(total=total, initial=offset, desc=name, unit="B", unit_scale=True, disable=None) as progress:
        while block := response.read(_BLOCK):
            file.write(block)
            offset += len(block)
            progress.update(len(block))
    if total is not None and offset < total:
        raise _ConnectionLostError(f"the connection ended after {offset} of {total} bytes")
