r"""Makes one page of runs: how few bits are enough, and what that costs.

  python -m qgan_jax.report runs/sweep-mnist-bits,seed-0a1b2c3d
  python -m qgan_jax.report runs/digits runs/mnist --out=compare.html

Takes run folders, sweeps, or folders that hold such. Writes one HTML file that
needs no network, and beside it the same tables as CSV and Parquet and the main
charts as PNG, SVG and PDF. Trials that failed or still run are in it as far as
they came.

  python -m qgan_jax.report runs/sweep-… --serve

follows a sweep that is running, at an address that only this machine reaches.
"""

from collections.abc import Sequence
import os
from pathlib import Path
import shlex
import sys
from typing import TYPE_CHECKING

from absl import flags

from qgan_jax import errors
from qgan_jax.errors import UserError

if TYPE_CHECKING:
  from qgan_jax.reports import serve

_OUT = flags.DEFINE_string(
  'out', None, 'The page; report.html in the folder, or here if several.'
)
_FILES = flags.DEFINE_bool(
  'files', True, 'Tables and figures beside the page, in PAGE-files/.'
)
_WITHIN = flags.DEFINE_float(
  'within',
  0.1,
  'How much worse than float is close enough: 0.1 is 10 %.',
  lower_bound=0.0,
)
_SERVE = flags.DEFINE_bool('serve', False, 'Follows a sweep in the browser.')
_HOST = flags.DEFINE_string(
  'host', '127.0.0.1', 'Where --serve listens; 0.0.0.0 lets others look.'
)
_PORT = flags.DEFINE_integer(
  'port', 8000, 'Where --serve listens; 0 takes any that is free.'
)


def main() -> None:
  """Parses the command line and runs; see the module's docstring."""
  folders = errors.parse_flags(sys.argv, arguments=True)
  if not folders:
    raise UserError(
      'a report of which runs? python -m qgan_jax.report runs/sweep-…; --help '
      'tells more'
    )
  try:
    # Only this command needs them.
    from qgan_jax.reports import write
  except ModuleNotFoundError as error:
    raise UserError(
      f'{error.name} is not installed; a report needs '
      "pip install -e '.[report]'"
    ) from None
  command = shlex.join(['python', '-m', 'qgan_jax.report', *sys.argv[1:]])
  report = write.Report(folders, within=_WITHIN.value, command=command)
  if _SERVE.value:
    _serve(report.pages())
    return
  out = Path(_OUT.value) if _OUT.value else _default_out(folders)
  for line in report.save(out, files=_FILES.value):
    print(line)


def _default_out(folders: Sequence[str | os.PathLike[str]]) -> Path:
  where = Path(folders[0]) if len(folders) == 1 else Path()
  return where / 'report.html'


def _serve(pages: 'serve.Pages') -> None:
  from qgan_jax.reports import serve

  with serve.make_server(pages, _HOST.value, _PORT.value) as server:
    host = _HOST.value if ':' not in _HOST.value else f'[{_HOST.value}]'
    print(f'http://{host}:{server.server_port}/ (Ctrl-C ends it)', flush=True)
    if not serve.is_loopback(_HOST.value):
      print('whoever reaches this address can look', file=sys.stderr)
    try:
      server.serve_forever()
    except KeyboardInterrupt:
      print('ended', file=sys.stderr)


if __name__ == '__main__':
  errors.run(main)
