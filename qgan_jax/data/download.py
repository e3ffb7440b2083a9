"""All downloads of the package: files with known size and checksum."""

import contextlib
import hashlib
import http.client
import os
from pathlib import Path
import queue
import sys
import threading
import time
from typing import Any, NamedTuple
import urllib.parse
import urllib.request

import tqdm

from qgan_jax.errors import UserError

_SOCKET_SECONDS = 5.0
_OPEN_SECONDS = 8.0
_TOTAL_SECONDS = 1800.0


class UnavailableError(UserError):
  """A file does not exist here and cannot be downloaded."""


class Original(NamedTuple):
  """A file as its publisher offers it.

  Attributes:
    url: where it is.
    size: in bytes.
    sha256: hexadecimal.
  """

  url: str
  size: int
  sha256: str


def fetch(original: Original, path: Path) -> None:
  """Downloads to `path`, which appears only when complete and verified.

  Progress is shown on stderr. The length that the server states is not used: no
  more than the known size is read.

  Raises:
    UnavailableError: it cannot be downloaded, or not within half an hour.
    UserError: it is another file, or `path` cannot be written.
  """
  data = _get(original)
  actual = hashlib.sha256(data).hexdigest()
  if actual != original.sha256:
    raise UserError(
      f'{original.url} does not give the original {path.name}: its SHA-256 is '
      f'{actual}, expected {original.sha256}; nothing was kept. Try again, or '
      f'get the file elsewhere and put it into {str(path.parent)!r}.'
    )
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(data)
    os.replace(partial, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)
    raise UserError(
      f'Cannot write the download to {str(path.parent)!r} ({error.strerror}); '
      'set data.dir or TFDS_DATA_DIR to a folder with room that can be '
      'written to.'
    ) from None


def _get(original: Original) -> bytes:
  url, size = original.url, original.size
  print(f'downloading {url}', file=sys.stderr)
  data = bytearray()
  deadline = time.monotonic() + _TOTAL_SECONDS
  bar = tqdm.tqdm(
    total=size, unit='B', unit_scale=True, disable=None, leave=False
  )
  try:
    with _open(url) as response, bar:
      # `read1` returns what has come, so that the deadline is looked at.
      while len(data) <= size and (chunk := response.read1(1 << 16)):
        data += chunk
        bar.update(len(chunk))
        if time.monotonic() > deadline:
          raise TimeoutError(
            f'{len(data)} of {size} bytes in {_TOTAL_SECONDS:g} seconds'
          )
  except (OSError, ValueError, http.client.HTTPException) as error:
    raise UnavailableError(f'{url} cannot be downloaded ({error})') from None
  # http.client raises nothing when the connection breaks off early.
  if len(data) < size:
    raise UnavailableError(
      f'{url} cannot be downloaded (broke off after {len(data)} of {size} '
      'bytes)'
    )
  return bytes(data)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
  """Follows redirects to HTTPS, and from HTTP to HTTP; urllib's to FTP, too."""

  def redirect_request(self, req, fp, code, msg, headers, newurl):
    """The request for the new place."""
    scheme = urllib.parse.urlsplit(newurl).scheme
    if scheme not in ('https', req.type):
      raise OSError(f'it sends to {newurl}, which is not {req.type}')
    return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str) -> Any:
  """Opens a URL within `_OPEN_SECONDS`, name resolution included.

  A socket's timeout covers neither name resolution nor trying one address
  after the other, so a thread does it, and is left behind if it hangs.
  """
  answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
  opener = urllib.request.build_opener(_SafeRedirects)

  def work() -> None:
    try:
      answers.put(opener.open(url, timeout=_SOCKET_SECONDS))
    except (OSError, ValueError, http.client.HTTPException) as error:
      answers.put(error)

  threading.Thread(target=work, daemon=True).start()
  try:
    answer = answers.get(timeout=_OPEN_SECONDS)
  except queue.Empty:
    raise TimeoutError(f'no answer in {_OPEN_SECONDS:g} seconds') from None
  if isinstance(answer, Exception):
    raise answer
  return answer
