"""Downloads from servers that fail, lie, dawdle or send elsewhere."""

import contextlib
import errno
import hashlib
import os
import socket
import threading
import time
import urllib.request

import pytest

from qgan_jax.data import download
from qgan_jax.errors import UserError

CONTENT = b'what was published' * 100


@contextlib.contextmanager
def _speaking(parts, pause=0.0):
  """A server that answers a connection with parts, or with silence."""
  held = []

  def answer(connection):
    with contextlib.suppress(OSError):
      connection.recv(4096)
      for part in parts:
        connection.sendall(part)
        time.sleep(pause)
      connection.close()

  def serve():
    with contextlib.suppress(OSError):
      while True:
        connection, _ = server.accept()
        held.append(connection)
        if parts:
          threading.Thread(
            target=answer, args=(connection,), daemon=True
          ).start()

  with socket.create_server(('127.0.0.1', 0)) as server:
    threading.Thread(target=serve, daemon=True).start()
    yield f'http://127.0.0.1:{server.getsockname()[1]}/file'
    for connection in held:
      connection.close()


def _fetch(url, path):
  digest = hashlib.sha256(CONTENT).hexdigest()
  download.fetch(download.Original(url, len(CONTENT), digest), path)


def _head(*lines):
  return '\r\n'.join(['HTTP/1.0 200 OK', *lines, '', '']).encode()


@pytest.mark.parametrize(
  'head',
  [
    _head(f'Content-Length: {len(CONTENT)}'),
    _head(),
    _head('Content-Length: many'),
    _head('Content-Length: 1e400'),
    _head('Content-Length: -1'),
  ],
)
def test_what_a_server_says_of_the_length_does_not_matter(head, tmp_path):
  with _speaking([head + CONTENT[:700], CONTENT[700:]]) as url:
    _fetch(url, tmp_path / 'new' / 'file')
  assert (tmp_path / 'new' / 'file').read_bytes() == CONTENT


@pytest.mark.parametrize(
  ('parts', 'says'),
  [
    ((), 'timed out|no answer'),
    ((_head('Content-Length: 9999'), b'half'), 'broke off after 4 of 1800'),
    ((_head(), b'half'), 'broke off after 4 of 1800'),
    ((b'no HTTP at all\r\n\r\n',), 'cannot be downloaded'),
    ((_head(), CONTENT[:-1] + b'!'), 'SHA-256 is .*nothing was kept'),
  ],
  ids=['hangs', 'breaks off', 'ends early', 'nonsense', 'another file'],
)
def test_servers_that_fail(parts, says, tmp_path, monkeypatch):
  monkeypatch.setattr(download, '_SOCKET_SECONDS', 0.3)
  start = time.monotonic()
  with _speaking(parts) as url, pytest.raises(UserError, match=says):
    _fetch(url, tmp_path / 'file')
  assert time.monotonic() - start < 3
  assert not list(tmp_path.iterdir())


def test_no_more_than_the_known_size_is_taken(tmp_path):
  sent = []

  def endless():
    yield _head()
    while True:
      sent.append(1 << 16)
      yield bytes(1 << 16)

  with _speaking(endless()) as url, pytest.raises(UserError, match='SHA-256'):
    _fetch(url, tmp_path / 'file')
  assert sum(sent) < 2**25


def test_a_trickle_ends_at_the_time_limit(tmp_path, monkeypatch):
  monkeypatch.setattr(download, '_TOTAL_SECONDS', 0.3)
  trickle = [CONTENT[i : i + 1] for i in range(200)]
  start = time.monotonic()
  with (
    _speaking([_head(), *trickle], pause=0.02) as url,
    pytest.raises(UserError, match='of 1800 bytes in 0.3 seconds'),
  ):
    _fetch(url, tmp_path / 'file')
  assert time.monotonic() - start < 2


@pytest.mark.parametrize(
  'place', ['ftp://127.0.0.1/x', 'file:///etc/passwd', 'data:,x', 'gopher://x']
)
def test_a_redirect_leaves_the_web_for_nothing(place, tmp_path):
  head = f'HTTP/1.0 302 Found\r\nLocation: {place}\r\n\r\n'.encode()
  with (
    _speaking([head]) as url,
    pytest.raises(download.UnavailableError, match='is not http|not allowed'),
  ):
    _fetch(url, tmp_path / 'file')


def test_a_redirect_does_not_give_up_https():
  request = urllib.request.Request('https://there/file')
  handler = download._SafeRedirects()
  asked = (request, None, 302, 'Found', {})
  with pytest.raises(OSError, match='is not https'):
    handler.redirect_request(*asked, 'http://there/file')
  assert handler.redirect_request(*asked, 'https://other/file').host == 'other'


def test_a_redirect_within_the_web_is_followed(tmp_path):
  with _speaking([_head(), CONTENT]) as there:
    head = f'HTTP/1.0 302 Found\r\nLocation: {there}\r\n\r\n'.encode()
    with _speaking([head]) as url:
      _fetch(url, tmp_path / 'file')
  assert (tmp_path / 'file').read_bytes() == CONTENT


def test_name_resolution_that_hangs_is_left_behind(tmp_path, monkeypatch):
  monkeypatch.setattr(download, '_OPEN_SECONDS', 0.2)
  monkeypatch.setattr(socket, 'getaddrinfo', lambda *args: time.sleep(2) or [])
  start = time.monotonic()
  with pytest.raises(UserError, match='no answer in 0.2 seconds'):
    _fetch('http://example.invalid/file', tmp_path / 'file')
  assert time.monotonic() - start < 1.5


def test_nothing_is_left_of_what_could_not_be_written(tmp_path, monkeypatch):
  def full(source, target):
    del source, target
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(download.os, 'replace', full)
  head = _head(f'Content-Length: {len(CONTENT)}')
  says = pytest.raises(UserError, match='Cannot write .*No space left')
  with _speaking([head + CONTENT]) as url, says:
    _fetch(url, tmp_path / 'file')
  assert not list(tmp_path.iterdir())
