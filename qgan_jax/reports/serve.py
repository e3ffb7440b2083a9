"""Serves the page of a running sweep, renewed whenever the sweep changes."""

from collections.abc import Callable
import contextlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import ipaddress
import socket
import sys
import threading
from typing import Any
import urllib.parse

from qgan_jax.errors import UserError

# (version, with the library) → a page.
Render = Callable[[str, bool], str]
MOST_CONNECTIONS = 32
SECONDS_IDLE = 10.0  # A browser opens connections that it may never use.


class Pages:
  """The newest page, made when it is asked for, and cached."""

  def __init__(self, version: Callable[[], str], render: Render):
    """Makes nothing yet.

    Args:
      version: changes whenever the page would.
      render: makes the page.
    """
    self._version = version
    self._render = render
    self._lock = threading.Lock()
    self._made: dict[bool, tuple[str, bytes]] = {}

  def version(self) -> str:
    """The version of what there is now."""
    return self._version()

  def page(self, *, library: bool) -> bytes:
    """The page of what there is now."""
    with self._lock:
      version = self._version()
      if self._made.get(library, ('', b''))[0] != version:
        page = self._render(version, library).encode()
        self._made[library] = version, page
      return self._made[library][1]


def serve(pages: Pages, host: str, port: int) -> None:
  """Serves a page until Ctrl-C; prints its address. See `make_server`."""
  with make_server(pages, host, port) as server:
    name = host if ':' not in host else f'[{host}]'
    print(f'http://{name}:{server.server_port}/ (Ctrl-C ends it)', flush=True)
    if not is_loopback(host):
      print('whoever reaches this address can look', file=sys.stderr)
    try:
      server.serve_forever()
    except KeyboardInterrupt:
      print('ended', file=sys.stderr)


class _Server(ThreadingHTTPServer):
  """Answers each connection in a thread, and bounds how many there are."""

  request_queue_size = MOST_CONNECTIONS

  def __init__(self, address: tuple[str, int], handler: Any):
    """Listens."""
    self.address_family = (
      socket.AF_INET6 if ':' in address[0] else socket.AF_INET
    )
    self._open: list[socket.socket] = []
    self._lock = threading.Lock()
    super().__init__(address, handler)

  def process_request(self, request: Any, client_address: Any) -> None:
    """Starts a thread; of too many, the oldest loses its connection."""
    with self._lock:
      self._open.append(request)
      if len(self._open) > MOST_CONNECTIONS:
        with contextlib.suppress(OSError):
          self._open.pop(0).shutdown(socket.SHUT_RDWR)
    super().process_request(request, client_address)

  def shutdown_request(self, request: Any) -> None:
    """Closes a connection."""
    with self._lock, contextlib.suppress(ValueError):
      self._open.remove(request)
    super().shutdown_request(request)

  def handle_error(self, request: Any, client_address: Any) -> None:
    """A client that is gone is no error of the server."""
    if not isinstance(sys.exception(), OSError):
      super().handle_error(request, client_address)


def make_server(pages: Pages, host: str, port: int) -> ThreadingHTTPServer:
  """A server of one page; `serve_forever` runs it.

  Args:
    pages: what it shows.
    host: where it listens: a loopback address, unless others may look.
    port: 0 takes any that is free.

  Raises:
    UserError: it cannot listen there.
  """

  class Handler(BaseHTTPRequestHandler):
    timeout = SECONDS_IDLE

    def do_GET(self) -> None:
      # Against DNS rebinding: another site whose name points here is refused.
      if not _may_ask(self.headers.get('Host', ''), host):
        self.send_error(403)
        return
      try:
        if self.path == '/':
          self._send('text/html', pages.page(library=True))
        elif self.path == '/page':
          self._send('text/html', pages.page(library=False))
        elif self.path == '/version':
          self._send('text/plain', pages.version().encode())
        else:
          self.send_error(404)
      except UserError as error:
        self.send_error(503, explain=str(error))

    do_HEAD = do_GET

    def _send(self, kind: str, body: bytes) -> None:
      self.send_response(200)
      self.send_header('Content-Type', f'{kind}; charset=utf-8')
      self.send_header('Content-Length', str(len(body)))
      self.send_header('Cache-Control', 'no-store')
      self.end_headers()
      if self.command != 'HEAD':
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
      pass  # Not logged: a page asks every two seconds.

  try:
    return _Server((host, port), Handler)
  except (OSError, UnicodeError) as error:
    raise UserError(
      f'cannot listen on {host}:{port} ({error}); give another --port, or '
      '--port=0 for one that is free'
    ) from None


def _may_ask(asked: str, host: str) -> bool:
  """Whether the Host that a request names may reach a server on `host`."""
  if not is_loopback(host):
    return True
  try:
    # In small letters, without the port and the brackets of an IPv6 address.
    return is_loopback(urllib.parse.urlsplit(f'//{asked}').hostname or '')
  except ValueError:
    return False


def is_loopback(host: str) -> bool:
  """Whether only this machine reaches it."""
  try:
    return host.lower() == 'localhost' or ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False
