"""Curves of training: which panels there are, and the points in them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from qgan_jax.reports.charts import finite
from qgan_jax.reports.read import Curve, Run

_POINTS = 20_000  # Of all runs in one panel; more make a page slow.
_FEWEST, _MOST = 50, 500  # Of one curve.
_NETWORKS = {'generator': 'G', 'discriminator': 'D'}
_MOST_SETTINGS = 36  # In a heat map; names of more are not legible.

# Section, title of the panel, and the metrics in it: the first is shown first.
_PANELS = (
  ('training', 'Distance to training images', ('eval/frechet_', 'eval/fid')),
  ('training', 'Losses', ('d_loss', 'g_loss', 'penalty')),
  ('stability', 'Accuracy of D', ('d_real_accuracy', 'd_fake_accuracy')),
  ('stability', 'Mean output of D', ('d_real', 'd_fake')),
  ('stability', 'Gradient norms', ('g_gradient_norm', 'd_gradient_norm')),
  ('stability', 'Modes and rank', ('eval/',)),
  ('speed', 'Training steps per second', ('steps_per_second',)),
)
_NAMES = {
  'eval/frechet_distance_train': 'distance to training images',
  'eval/effective_rank': 'effective rank of features',
  'eval/mode_kl': 'KL from the class histogram',
  'eval/modes_covered': 'classes covered',
  'd_loss': 'loss of D',
  'g_loss': 'loss of G',
  'penalty': 'penalty of D',
  'd_real_accuracy': 'accuracy of D on real images',
  'd_fake_accuracy': 'accuracy of D on generated images',
  'd_real': 'mean D(x)',
  'd_fake': 'mean D(G(z))',
  'g_gradient_norm': 'gradient norm of G',
  'd_gradient_norm': 'gradient norm of D',
  'steps_per_second': 'steps per second',
}


# Titles of what is measured of quantized tensors; others keep their names.
_MEASURES = {
  'sqnr_db': 'Signal to quantization noise, dB',
  'clipped': 'Share of values clipped',
  'used': 'Share of levels used',
  'dead': 'Dead levels',
  'entropy': 'Entropy of levels, bits',
  'bits': 'Bits',
  'flips': 'Share of weights that change level in a step',
  'gradient_cosine': 'Cosine of the gradient with that in float',
  'penalty_cosine': 'Cosine of the penalty’s gradient with that in float',
}


def panels(runs: Sequence[Run]) -> list[dict[str, Any]]:
  """What can be shown of these runs, a panel for each family of metrics.

  Returns:
    Panels: `section`, `title`, and `metrics`: pairs of a metric's key and what
    a reader calls it. A metric is in one panel.
  """
  left = list(dict.fromkeys(name for run in runs for name in run.curves))
  found: list[dict[str, Any]] = []

  def add(section: str, title: str, keys: list[str]) -> None:
    for key in keys:
      left.remove(key)
    if keys:
      metrics = [(key, _NAMES.get(key, key)) for key in keys]
      found.append(
        {
          'section': section,
          'title': title,
          'metrics': metrics,
          'layered': False,
        }
      )

  for section, title, prefixes in _PANELS:
    keys = [
      key
      for prefix in prefixes
      for key in left
      if (key.startswith(prefix) if '/' in prefix else key == prefix)
    ]
    add(section, title, list(dict.fromkeys(keys)))
  families: dict[str, list[str]] = {}
  for key in left:
    families.setdefault(family_of(key)[0], []).append(key)
  for family, keys in families.items():
    section, title = _section(family)
    layers = [family_of(key)[1] for key in keys]
    add(section, title, keys)
    if any(layers):
      found[-1]['metrics'] = list(zip(keys, layers, strict=True))
      found[-1]['layered'] = True
  return found


def family_of(key: str) -> tuple[str, str]:
  """Splits a metric of a layer: 'a/generator/up0' → 'a', 'G up0'.

  The layer is empty for metrics of no layer. Where nothing but `quantization`
  stands before the network, the last part says what is measured.
  """
  parts = key.split('/')
  at = next((i for i, part in enumerate(parts) if part in _NETWORKS), None)
  if at is None and parts[0] in ('sigma', 'quantization') and len(parts) > 2:
    at = 1  # A network of another variant.
  if at is None:
    return (key if len(parts) == 1 else parts[0]), ''
  before, layer = parts[:at], parts[at:]
  if before in ([], ['quantization']) and len(layer) > 1:
    before, layer = [*before, layer[-1]], layer[:-1]
  name = '/'.join([_NETWORKS.get(layer[0], layer[0]), *layer[1:]]).replace(
    '/', ' ', 1
  )
  return '/'.join(before), name


def _section(family: str) -> tuple[str, str]:
  first, _, rest = family.partition('/')
  if first == 'sigma':
    return 'stability', 'Largest singular values'
  if first == 'quantization':
    title = rest.replace('_', ' ').replace('/', ' ') or 'other metrics'
    return 'quantization', _MEASURES.get(rest, title[:1].upper() + title[1:])
  return 'other', family


def points(runs: Sequence[Run]) -> dict[str, list[Any]]:
  """The points of all curves, thinned out to what a screen can show.

  Returns:
    For each metric a list over runs: [steps, values], or None where a run has
    none. Values that are not finite are None: a gap in the line.
  """
  limit = min(_MOST, max(_FEWEST, _POINTS // max(1, len(runs))))
  names = dict.fromkeys(name for run in runs for name in run.curves)
  return {
    name: [
      thinned(run.curves[name], limit) if name in run.curves else None
      for run in runs
    ]
    for name in names
  }


def thinned(curve: Curve, limit: int) -> list[list[Any]]:
  """At most so many of a curve's points, evenly, the last one among them."""
  steps, values = curve
  count = len(steps)
  chosen = (
    range(count)
    if count <= limit
    else np.unique(np.linspace(0, count - 1, limit).round().astype(int))
  )
  return [
    [steps[i] for i in chosen],
    [finite(float(f'{values[i]:.5g}')) for i in chosen],
  ]


def is_once(panel: dict[str, Any], runs: Sequence[Run]) -> bool:
  """Whether no run has more than one value of any metric in a panel."""
  return all(
    len(run.curves[key][0]) == 1
    for run in runs
    for key, _ in panel['metrics']
    if key in run.curves
  )


def heat_map(
  panel: dict[str, Any], runs: Sequence[Run], settings: Sequence[str]
) -> dict[str, Any] | None:
  """A layered panel at the end of training: settings × layers.

  Args:
    panel: one of `panels`.
    runs: the runs, in the order in which they are shown.
    settings: of each of them.

  Returns:
    `x` layers, `y` settings, `z` the mean over seeds of the last value; None
    for panels of no layers or of too many settings to be read.
  """
  names = list(dict.fromkeys(settings))
  if not panel['layered'] or len(names) > _MOST_SETTINGS:
    return None
  rows = []
  for name in names:
    members = [r for r, s in zip(runs, settings, strict=True) if s == name]
    row = []
    for key, _ in panel['metrics']:
      last = [r.curves[key][1][-1] for r in members if key in r.curves]
      mean = pd.Series(last, dtype=float).mean()
      row.append(finite(float(mean)))
    rows.append(row)
  kept = [i for i, row in enumerate(rows) if any(v is not None for v in row)]
  if not kept:
    return None
  return {
    'x': [layer for _, layer in panel['metrics']],
    'y': [names[i] for i in kept],
    'z': [rows[i] for i in kept],
  }
