import http.client
import socket
import struct
import threading
import time

from fake_runs import make_run
import pytest

from qgan_jax.errors import UserError
from qgan_jax.reports import serve
from qgan_jax.reports.write import Report


@pytest.fixture
def server(tmp_path):
  make_run(tmp_path / 'runs' / 'first')
  report = Report([tmp_path / 'runs'], within=0.1, command='x')
  server = serve.make_server(report.pages(), '127.0.0.1', 0)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


def get(server, path, **headers):
  connection = http.client.HTTPConnection(*server.server_address)
  connection.request('GET', path, headers=headers)
  response = connection.getresponse()
  return response.status, response.read().decode()


def test_what_is_new_is_shown(server, tmp_path):
  _, before = get(server, '/version')
  status, page = get(server, '/')
  assert status == 200
  assert f'data-version="{before}"' in page
  assert get(server, '/version') == (200, before)
  make_run(tmp_path / 'runs' / 'second')
  _, after = get(server, '/version')
  assert after != before
  status, part = get(server, '/page')
  assert 'second' in part
  # Without the library, which the browser has already.
  assert len(part) < len(page) / 4
  assert get(server, '/else')[0] == 404


def test_pages_from_elsewhere_cannot_read_it(server):
  assert get(server, '/', Host='example.org')[0] == 403
  assert get(server, '/version', Host='localhost:8000')[0] == 200


def test_a_port_that_is_taken_is_said(server):
  port = server.server_port
  with pytest.raises(UserError, match=f'{port}.*--port'):
    serve.make_server(None, '127.0.0.1', port)


@pytest.mark.parametrize(
  ('host', 'only_here'),
  [('127.0.0.1', True), ('localhost', True), ('::1', True), ('0.0.0.0', False)],
)
def test_loopback(host, only_here):
  assert serve.is_loopback(host) == only_here


def test_head_is_get_without_the_page(server):
  connection = http.client.HTTPConnection(*server.server_address)
  for path in '/', '/version', '/else':
    status, page = get(server, path)
    connection.request('HEAD', path)
    response = connection.getresponse()
    assert response.status == status
    assert response.read() == b''
    assert int(response.headers['Content-Length']) == len(page.encode())


def test_which_hosts_may_ask(server):
  for asked, status in (
    ('LOCALHOST:80', 200), ('LocalHost', 200), ('127.0.0.1', 200),
    ('[::1]:8000', 200), ('[::1]', 200), ('', 403), ('[::1', 403),
    ('localhost.example.org', 403), ('example.org#localhost', 403),
    ('localhost.', 403), ('127.0.0.1.example.org', 403),
  ):  # fmt: skip
    assert get(server, '/version', Host=asked)[0] == status, asked


def test_idle_connections_are_bounded_and_keep_nobody_out(server):
  before = threading.active_count()
  idle = [
    socket.create_connection(server.server_address)
    for _ in range(3 * serve.MOST_CONNECTIONS)
  ]
  assert get(server, '/version')[0] == 200
  # Less than the time after which an idle connection ends by itself.
  deadline = time.monotonic() + serve.SECONDS_IDLE / 3
  most = before + serve.MOST_CONNECTIONS
  while threading.active_count() > most and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() <= most
  for connection in idle:
    connection.close()


def test_a_connection_that_says_nothing_is_closed(monkeypatch, tmp_path):
  monkeypatch.setattr(serve, 'SECONDS_IDLE', 0.2)
  with serve.make_server(None, '127.0.0.1', 0) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      with socket.create_connection(server.server_address, timeout=5) as idle:
        idle.send(b'GET / HT')
        assert idle.recv(10) == b''
    finally:
      server.shutdown()
      thread.join()


def test_a_client_that_is_gone_leaves_no_traceback(server, capfd):
  for _ in range(5):
    client = socket.create_connection(server.server_address)
    client.send(b'GET / HTTP/1.0\r\nHost: localhost\r\n\r\n')
    # Closed with a reset, and not in order.
    client.setsockopt(
      socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)
    )
    client.close()
  assert get(server, '/')[0] == 200
  server.shutdown()
  time.sleep(0.2)
  assert capfd.readouterr().err == ''
