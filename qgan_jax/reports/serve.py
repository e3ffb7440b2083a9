"""Serves the page of a running sweep, renewed whenever the sweep changes."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import ipaddress
import sys
import threading

from qgan_jax.errors import UserError

# (version, with the library) → a page.
Render = Callable[[str, bool], str]


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

    def _send(self, kind: str, body: bytes) -> None:
      self.send_response(200)
      self.send_header('Content-Type', f'{kind}; charset=utf-8')
      self.send_header('Content-Length', str(len(body)))
      self.send_header('Cache-Control', 'no-store')
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
      pass  # Not logged: a page asks every two seconds.

  try:
    return ThreadingHTTPServer((host, port), Handler)
  except OSError as error:
    raise UserError(
      f'cannot listen on {host}:{port}: {error.strerror}; give another --port, '
      'or --port=0 for one that is free'
    ) from None


def _may_ask(asked: str, host: str) -> bool:
  """Whether the Host that a request names may reach a server on `host`."""
  if not is_loopback(host):
    return True
  return is_loopback(asked.rpartition(':')[0] or asked)


def is_loopback(host: str) -> bool:
  """Whether only this machine reaches it."""
  try:
    return host == 'localhost' or ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False
