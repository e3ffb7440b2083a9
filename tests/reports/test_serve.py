import http.client
import threading

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
