"""Runs as tables: one row for each trial, and one for each setting."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import statistics
from typing import Any

import pandas as pd

from qgan_jax import records
from qgan_jax.records.schemas import DISTANCES, MEASURED, QUALITIES
from qgan_jax.reports.read import Run
from qgan_jax.reports.settings import settings_of

CHECKPOINTS = ('best', 'last')
SCORES = 'score', *QUALITIES, *MEASURED
_OF_SETTINGS = ('series', 'bits', 'x', 'is_float', 'is_quantized')
# Scores that differ in one of these cannot be compared.
_COMPARED = (
  'dataset', 'images', 'score_name', 'extractor', 'extractor_hash', 'num_real',
  'num_fake',
)  # fmt: skip


def trials_table(runs: Sequence[Run]) -> pd.DataFrame:
  """One row for each run, finished or not.

  Columns are `trial`, `state`, what was tried, `best_…` and `last_…` scores,
  sizes in bytes, `steps_per_second` (the median of what was logged),
  `seconds`, and the provenance of all of it. Unknown values are missing.
  """
  rows = [
    _row(run, setting)
    for run, setting in zip(runs, settings_of(runs), strict=True)
  ]
  table = pd.DataFrame(rows)
  return table.sort_values(
    ['dataset', 'series', 'x', 'setting', 'seed', 'trial'],
    ignore_index=True,
    na_position='last',
  )


def _row(run: Run, setting: Any) -> dict[str, Any]:
  config, scores = run.config, run.scores
  row: dict[str, Any] = {
    'trial': run.name,
    'state': run.state,
    'message': run.message.partition('\n')[0],
    'dataset': run.record.get('dataset') or config.get('data.source') or '?',
    'images': _images(config),
    'setting': setting.label,
    'series': setting.series,
    'bits': setting.bits,
    'x': setting.x,
    'is_float': setting.is_float,
    'is_quantized': setting.is_quantized,
    'g_w_bits': config.get('generator.bits.weights'),
    'g_a_bits': config.get('generator.bits.activations'),
    'd_w_bits': config.get('discriminator.bits.weights'),
    'd_a_bits': config.get('discriminator.bits.activations'),
    'seed': config.get('seed'),
    'step': run.step,
    'steps': config.get('steps'),
  }
  for checkpoint in CHECKPOINTS:
    found = scores.get(checkpoint) or {}
    name = next((n for n in DISTANCES if n in found), None)
    row[f'{checkpoint}_step'] = found.get('step')
    row[f'{checkpoint}_score'] = found.get(name) if name else None
    for key in SCORES[1:]:
      row[f'{checkpoint}_{key}'] = found.get(key)
    if name != 'fid':  # KID is defined for Inception's features alone.
      row[f'{checkpoint}_kid_mean'] = None
  best = scores.get('best') or {}
  extractor = best.get('extractor') or {}
  sizes = scores.get('sizes') or {}
  rates = run.curves.get('steps_per_second', ([], []))[1]
  row |= {
    'artifact_bytes': sizes.get('artifact_bytes'),
    'float_bytes': sizes.get('float_bytes'),
    'times_smaller': sizes.get('ratio'),
    'steps_per_second': statistics.median(rates) if rates else None,
    'seconds': run.seconds,
    'score_name': next((n for n in DISTANCES if n in best), None),
    'extractor': extractor.get('name'),
    'extractor_hash': extractor.get('hash'),
    'extractor_accuracy': extractor.get('accuracy'),
    'extractor_resize': extractor.get('resize'),
    'reference': best.get('reference'),
    'weights': best.get('weights'),
    'num_real': best.get('num_real'),
    'num_fake': best.get('num_fake'),
    'num_neighbours': best.get('num_neighbours'),
    'too_few': records.of_too_few(best) if best else '',
    'score_seed': best.get('seed'),
    'devices': _devices(run.record.get('devices') or []),
    'versions': ', '.join(
      f'{name} {version}'
      for name, version in (run.record.get('versions') or {}).items()
    ),
    'command': run.command,
  }
  return row


def _images(config: Mapping[str, Any]) -> str:
  """How pictures of the data were prepared, the held-out ones, too."""
  keys = ('image_size', 'image_channels', 'fit')
  values = (config.get(f'data.{key}') for key in keys)
  return ' × '.join(str(value) for value in values if value is not None)


def _devices(kinds: list[str]) -> str:
  return ', '.join(
    kind if kinds.count(kind) == 1 else f'{kinds.count(kind)} × {kind}'
    for kind in dict.fromkeys(kinds)
  )


def comparisons_of(trials: pd.DataFrame) -> dict[str, pd.DataFrame]:
  """Parts a table into trials whose scores can be compared.

  The Fréchet distance depends on the features and on the number of images, not
  on the generator alone. Trials without a score go with those of their data.

  Args:
    trials: of `trials_table`.

  Returns:
    By name, the largest first.
  """
  names = trials[list(_COMPARED)].apply(
    lambda row: (
      f'{row["dataset"]} as {row["images"]}: '
      f'{row["extractor"]} {row["extractor_hash"]}, '
      f'{row["num_fake"]:,.0f} images against {row["num_real"]:,.0f}'
      if isinstance(row["score_name"], str)
      else None
    ),
    axis=1,
  )  # fmt: skip
  for dataset, group in trials.groupby('dataset'):
    common = names[group.index].dropna().mode()
    name = common.iloc[0] if len(common) else str(dataset)
    names[group.index] = names[group.index].fillna(name)
  return {name: trials[names == name] for name in names.value_counts().index}


def settings_table(trials: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
  """One row for each setting that has a score: its seeds, taken together.

  Args:
    trials: of `trials_table`; of one comparison.
    checkpoint: 'best' or 'last'.

  Returns:
    For each score and size its mean as `NAME`, and `NAME_min`, `NAME_max`,
    `NAME_std` (of the sample; missing for one trial), over all `trials` with
    that many `seeds`; and
    `pareto` whether no other setting is both smaller and better.
  """
  renamed = {f'{checkpoint}_{name}': name for name in SCORES}
  numbers = [*SCORES, 'artifact_bytes', 'times_smaller', 'steps_per_second']
  scored = trials.rename(columns=renamed)
  scored = scored[pd.to_numeric(scored['score'], errors='coerce').notna()]
  rows = []
  for label, group in scored.groupby('setting', sort=False):
    first = group.iloc[0]
    row: dict[str, Any] = {
      'setting': label,
      'trials': len(group),
      'seeds': max(1, group['seed'].nunique()),
    }
    row |= {key: first[key] for key in _OF_SETTINGS}
    for name in numbers:
      values = pd.to_numeric(group[name], errors='coerce').dropna()
      # Rounding may move the mean of equal values off their value.
      mean = min(max(values.mean(), values.min()), values.max())
      row |= {
        name: mean,
        f'{name}_min': values.min(),
        f'{name}_max': values.max(),
        f'{name}_std': values.std(),
      }
    rows.append(row)
  columns = ['setting', 'trials', 'seeds', *_OF_SETTINGS]
  if not rows:
    return pd.DataFrame(columns=[*columns, *numbers, 'pareto'])
  table = pd.DataFrame(rows)
  table['pareto'] = pareto(table['artifact_bytes'], table['score'])
  return table


def pareto(sizes: pd.Series, scores: pd.Series) -> list[bool]:
  """Which points no other one beats: smaller is better in both."""
  points = list(zip(sizes, scores, strict=True))
  return [
    a == a
    and b == b
    and not any(x <= a and y <= b and (x < a or y < b) for x, y in points)
    for a, b in points
  ]


def curves_table(runs: Sequence[Run]) -> pd.DataFrame:
  """All that was logged, long: `trial`, `step`, `metric`, `value`."""
  parts = [
    pd.DataFrame(
      {'trial': run.name, 'step': steps, 'metric': name, 'value': values}
    )
    for run in runs
    for name, (steps, values) in run.curves.items()
  ]
  columns = ['trial', 'step', 'metric', 'value']
  return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def save_tables(tables: dict[str, pd.DataFrame], folder: Path) -> None:
  """Writes each table as NAME.csv and NAME.parquet into a folder."""
  for name, table in tables.items():
    table.to_csv(folder / f'{name}.csv', index=False)
    table.to_parquet(folder / f'{name}.parquet', index=False)
