"""Tables on the page: which columns, how numbers look, what sorts them."""

from collections.abc import Sequence
import datetime
from typing import Any, NamedTuple

import pandas as pd

from qgan_jax.records.schemas import MEASURED
from qgan_jax.reports.answer import number


class Column(NamedTuple):
  """A column of a table on the page.

  Attributes:
    key: of the data frame.
    title: what a reader sees.
    form: formats a number; None for text.
  """

  key: str
  title: str
  form: Any = None

  @property
  def numeric(self) -> bool:
    """Whether it holds numbers, which are aligned to the right."""
    return self.form is not None


class Cell(NamedTuple):
  """What stands in a table: its text, what it is sorted by, its class."""

  text: str
  value: Any = None
  kind: str = ''


def _count(value: float) -> str:
  return f'{value:,.0f}'


def _share(value: float) -> str:
  return f'{value:.3f}'


def _seconds(value: float) -> str:
  return str(datetime.timedelta(seconds=round(value)))


def _bits(value: float) -> str:
  return f'{value:g}'


def _times(value: float) -> str:
  return f'{value:.2f}×'


def _on_page(
  frame: pd.DataFrame, columns: Sequence[Column], id: str, title: str
) -> dict[str, Any]:
  """A table for the template; columns of nothing are left out."""
  kept = [c for c in columns if c.key in frame and frame[c.key].notna().any()]
  rows = [
    [_cell(row[column.key], column) for column in kept]
    for _, row in frame.iterrows()
  ]
  return {'id': id, 'title': title, 'columns': kept, 'rows': rows}


def _cell(value: Any, column: Column) -> Cell:
  if value is None or value != value:
    return Cell('–', '', 'n' if column.numeric else '')
  if column.form is not None:
    return Cell(column.form(float(value)), float(value), 'n')
  if column.key == 'state':
    return Cell(str(value), None, str(value))
  if column.key == 'message':
    return Cell(str(value), None, 'wrap')
  return Cell(str(value))


# Of what variants measure.
_TITLES = {
  'elbo': 'ELBO, nats',
  'importance_weighted_bound': 'importance-weighted',
  'kl': 'KL, nats',
  'reconstruction_error': 'squared error',
  'l1': 'L1',
  'psnr': 'PSNR, dB',
  'ssim': 'SSIM',
}


def settings_on_page(
  settings: pd.DataFrame, id: str, score: str
) -> dict[str, Any]:
  """Settings with the means of their scores; `score` is what it is called."""
  if len(settings):
    settings = settings.assign(
      front=['yes' if on else '' for on in settings['pareto']]
    )
    floats = settings.loc[settings['is_float'], 'score']
    if len(floats):
      settings['to_float'] = settings['score'] / floats.min()
  columns = [
    Column('setting', 'setting'),
    Column('seeds', 'seeds', _count),
    Column('score', f'{score}, mean', number),
    Column('score_min', 'lowest', number),
    Column('score_max', 'highest', number),
    Column('to_float', 'to float', _times),
    Column('artifact_bytes', 'bytes', _count),
    Column('times_smaller', 'smaller', _times),
    *(Column(name, _TITLES[name], number) for name in MEASURED),
    Column('precision', 'precision', _share),
    Column('recall', 'recall', _share),
    Column('density', 'density', _share),
    Column('coverage', 'coverage', _share),
    Column('kid_mean', 'KID', number),
    Column('kernel_distance_mean', 'kernel distance', number),
    Column('mode_kl', 'class KL', number),
    Column('effective_rank', 'rank', number),
    Column('score_std', 'std', number),
    Column('front', 'on the front'),
  ]
  return _on_page(settings, columns, id, 'Settings, means over seeds')


def trials_on_page(trials: pd.DataFrame) -> dict[str, Any]:
  """What became of each trial."""
  trials = trials.assign(message=trials['message'].replace('', None))
  columns = [
    Column('trial', 'trial'),
    Column('state', 'state'),
    Column('setting', 'setting'),
    Column('seed', 'seed', _count),
    Column('step', 'step', _count),
    Column('steps', 'of', _count),
    Column('best_score', 'best', number),
    Column('best_step', 'at step', _count),
    Column('last_score', 'last', number),
    Column('best_precision', 'precision', _share),
    Column('best_recall', 'recall', _share),
    Column('best_coverage', 'coverage', _share),
    Column('message', 'message'),
  ]
  return _on_page(trials, columns, 'table-trials', 'All trials')


def sizes_on_page(trials: pd.DataFrame) -> dict[str, Any]:
  """Bits, bytes and rates of each trial."""
  columns = [
    Column('trial', 'trial'),
    Column('g_w_bits', 'G weights', _bits),
    Column('g_a_bits', 'G activations', _bits),
    Column('d_w_bits', 'D weights', _bits),
    Column('d_a_bits', 'D activations', _bits),
    Column('artifact_bytes', 'packed bytes', _count),
    Column('float_bytes', 'in float32', _count),
    Column('times_smaller', 'smaller', _times),
    Column('steps_per_second', 'steps/s, median', number),
    Column('seconds', 'run time', _seconds),
    Column('devices', 'devices'),
  ]
  return _on_page(trials, columns, 'table-sizes', 'Size and speed')
