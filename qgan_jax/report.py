r"""Makes one page about runs: how few bits are enough, and at what cost.

  python -m qgan_jax.report runs/sweep-mnist-bits,seed-0a1b2c3d
  python -m qgan_jax.report runs/digits runs/mnist --out=compare.html

The arguments are folders of runs or sweeps, or folders that hold these. The
page is one HTML file that needs no network. Beside it are the same tables as
CSV and Parquet, and the main charts as PNG, SVG and PDF. Trials that failed or
are still running are included as far as they got.

With --serve, the page follows a sweep that is running, at an address that only
this machine reaches:

  python -m qgan_jax.report runs/sweep-… --serve
"""

from collections.abc import Sequence
from pathlib import Path
import shlex

from absl import flags

from qgan_jax import errors
from qgan_jax.errors import UserError


def main(argv: Sequence[str]) -> None:
  """Writes or serves the page; see the module's docstring."""
  values = flags.FlagValues()
  errors.define_path(
    'out',
    'HTML file to write; by default report.html in the folder, or in the '
    'working directory if several are given.',
    values,
  )
  flags.DEFINE_bool(
    'files',
    True,
    'Writes tables and figures beside the page, to PAGE-files/.',
    flag_values=values,
  )
  flags.DEFINE_float(
    'within',
    0.1,
    'How much worse than float a score may be and still count as close enough: '
    '0.1 is 10 %.',
    lower_bound=0.0,
    flag_values=values,
  )
  flags.DEFINE_bool(
    'serve',
    False,
    'Serves a page that follows a running sweep, and writes no files.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'host',
    '127.0.0.1',
    'Address at which --serve listens; with 0.0.0.0, others can see the page.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'port',
    8000,
    'Port at which --serve listens; 0 takes any free one.',
    lower_bound=0,
    upper_bound=2**16 - 1,
    flag_values=values,
  )
  folders = errors.parse_flags(argv, values, __doc__, arguments=True)
  if not (folders and all(folders)):
    raise UserError(
      'a report of which runs? python -m qgan_jax.report runs/sweep-…; --help '
      'tells more'
    )
  if values.out and not values.out.lower().endswith(('.html', '.htm')):
    raise UserError(f'--out={values.out}: give a file that ends in .html')
  try:
    # Here, so that --help works where their libraries are not installed.
    from qgan_jax.reports import serve, write
  except ModuleNotFoundError as error:
    raise UserError(
      f'{error.name} is not installed; a report needs '
      "pip install 'qgan_jax[report]'"
    ) from None
  command = shlex.join(['python', '-m', 'qgan_jax.report', *argv])
  folders = [errors.expand_home(folder) for folder in folders]
  report = write.Report(folders, within=values.within, command=command)
  if values.serve:
    serve.serve(report.pages(), values.host, values.port)
    return
  out = Path(values.out) if values.out else None
  for line in report.save(out, files=values.files):
    print(line)


if __name__ == '__main__':
  errors.run(main)
