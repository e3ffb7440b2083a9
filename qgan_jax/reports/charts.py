"""Charts of scores against bits and bytes, as Plotly takes them.

Colours are not here: the page gives each trace, by `meta`, and each shape, by
its name, a colour that suits the reader's light or dark theme.
"""

import json
import math
import textwrap
from typing import Any

import pandas as pd
from plotly import graph_objects as go

from qgan_jax.reports.answer import number, share, size

# Series differ in shape, not in colour alone, for the colour-blind.
SYMBOLS = ('circle', 'square', 'diamond', 'triangle-up', 'x', 'star')
DASHES = ('solid', 'dash', 'dot', 'dashdot')
TITLES = {
  'fid': 'FID',
  'frechet_distance': 'Fréchet distance',
  'precision': 'Precision',
  'recall': 'Recall',
  'density': 'Density',
  'coverage': 'Coverage',
}
# Above this ratio of largest to smallest, a linear axis shows one value only.
_LOG_FROM = 8
_BITS_TITLE = 'weight bits of G, log scale (32: float)'
_LEGEND_WIDTH = 44  # Letters that a phone has room for.

Chart = dict[str, Any]


def score_by_bits(
  settings: pd.DataFrame,
  trials: pd.DataFrame,
  *,
  metric: str,
  title: str,
  tolerance: float | None = None,
) -> Chart:
  """A score against bits: each trial a point, the means of settings a line.

  Args:
    settings: of `settings_table`.
    trials: of the same comparison and checkpoint; scores without prefix.
    metric: a column of both.
    title: of the axis.
    tolerance: if given, float's range is drawn, and the limit of what is close.
  """
  settings = settings.dropna(subset=['x', metric])
  figure = go.Figure()
  bits = sorted(settings['x'].unique())
  for i, series in enumerate(settings['series'].drop_duplicates()):
    chosen = settings[settings['series'] == series].sort_values('x')
    add_points(figure, trials[trials['series'] == series], i, 'x', metric)
    add_means(figure, chosen, i, series, 'x', metric)
  figure.update_xaxes(
    title=_BITS_TITLE,
    type='log' if bits and min(bits) > 0 else 'linear',
    tickvals=bits,
    ticktext=[f'{b:g}' for b in bits],
  )
  log = is_wide(trials[metric])
  figure.update_yaxes(
    title=title + (', log scale' if log else ''),
    type='log' if log else 'linear',
    rangemode='tozero',
  )
  floats = settings[settings['is_float']]
  if tolerance is not None and len(floats):
    _mark_float(figure, floats.loc[floats[metric].idxmin()], metric, tolerance)
  return as_chart(figure)


def score_by_bytes(
  settings: pd.DataFrame, trials: pd.DataFrame, *, title: str
) -> Chart:
  """A score against the packed generator's bytes, with the Pareto front."""
  settings = settings.dropna(subset=['artifact_bytes', 'score'])
  figure = go.Figure()
  front = settings[settings['pareto']].sort_values('artifact_bytes')
  figure.add_scatter(
    x=front['artifact_bytes'].tolist(),
    y=front['score'].tolist(),
    # Steps: up to the next setting's size, the smaller one is the best.
    line={'shape': 'hv', 'width': 6},
    mode='lines',
    name='Pareto front of the means',
    hoverinfo='skip',
    showlegend=False,
    meta={'role': 'front'},
  )
  # Names are alternately above and below the front, so that they do not meet.
  sides = {
    label: ('top right', 'bottom left')[place % 2]
    for place, label in enumerate(front.index)
  }
  for i, series in enumerate(settings['series'].drop_duplicates()):
    chosen = settings[settings['series'] == series]
    scored = trials[trials['series'] == series]
    add_points(figure, scored, i, 'artifact_bytes', 'score')
    add_means(
      figure,
      chosen.sort_values('artifact_bytes'),
      i,
      series,
      'artifact_bytes',
      'score',
      sides=sides,
    )
  log = is_wide(trials['score'])
  figure.update_yaxes(
    title=title + (', log scale' if log else ''),
    type='log' if log else 'linear',
    rangemode='tozero',
  )
  figure.update_xaxes(
    title='size of the packed generator, log scale',
    type='log',
    **_size_axis(settings['artifact_bytes']),
  )
  return as_chart(figure)


def _size_axis(sizes: pd.Series) -> dict[str, Any]:
  """Range, with room for names to the right of points, and round ticks."""
  if sizes.empty:
    return {}
  low, high = math.log10(sizes.min()), math.log10(sizes.max())
  margin = 0.05 + 0.1 * (high - low)
  low, high = low - margin / 2, high + 1.5 * margin
  ticks = [
    digit * 10.0**power
    for power in range(math.floor(low), math.ceil(high) + 1)
    for digit in (1, 2, 5)
    if low <= math.log10(digit * 10.0**power) <= high
  ]
  return {
    'range': [low, high],
    'tickvals': ticks,
    'ticktext': [round_size(tick) for tick in ticks],
  }


def round_size(value: float) -> str:
  """A size that is a round number, as on an axis: '200 kB'."""
  for unit, factor in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if value >= factor:
      return f'{value / factor:g} {unit}'
  return f'{value:g} B'


def add_points(
  figure: go.Figure, trials: pd.DataFrame, index: int, x: str, y: str
) -> None:
  """Each trial of a series."""
  trials = trials.dropna(subset=[x, y])
  figure.add_scatter(
    x=trials[x].tolist(),
    y=trials[y].tolist(),
    mode='markers',
    marker={'symbol': f'{SYMBOLS[index % len(SYMBOLS)]}-open', 'size': 8},
    opacity=0.75,
    showlegend=False,
    legendgroup=str(index),
    name='one trial',
    text=[
      f'{row.setting}, seed {row.seed}<br>{number(getattr(row, y))} at step '
      f'{row.step_scored:,.0f}<br>{size(row.artifact_bytes)}'
      for row in trials.itertuples()
    ],
    hovertemplate='%{text}<extra></extra>',
    meta={'role': 'trials', 'series': index},
  )


def add_means(
  figure: go.Figure,
  settings: pd.DataFrame,
  index: int,
  name: str,
  x: str,
  y: str,
  *,
  sides: dict[Any, str] | None = None,
) -> None:
  """The means of a series, with bars from the lowest to the highest seed.

  Args:
    figure: to add to.
    settings: of the series.
    index: of the series.
    name: of the series.
    x: a column.
    y: a column.
    sides: on which side of a mark its bits are written, by the setting's index;
      settings that are not in it have no text, since there may be too many to
      read. None draws lines and no text.
  """
  means = settings[y]
  shown: dict[str, Any] = {'mode': 'lines+markers'}
  if sides is not None:
    shown = {
      'mode': 'markers+text',
      'text': [
        bits if label in sides else ''
        for label, bits in settings['bits'].items()
      ],
      'textposition': [sides.get(i, 'top right') for i in settings.index],
    }
  figure.add_scatter(
    x=settings[x].tolist(),
    y=means.tolist(),
    error_y={
      'type': 'data',
      'symmetric': False,
      'array': (settings[f'{y}_max'] - means).tolist(),
      'arrayminus': (means - settings[f'{y}_min']).tolist(),
      'thickness': 1.5,
      'width': 4,
    },
    line={'width': 2, 'dash': DASHES[index // 8 % len(DASHES)]},
    marker={'symbol': SYMBOLS[index % len(SYMBOLS)], 'size': 8},
    name='<br>'.join(textwrap.wrap(name, _LEGEND_WIDTH)),
    legendgroup=str(index),
    customdata=[
      f'{row["setting"]}, mean of {row["seeds"]}<br>{number(row[y])} '
      f'({number(row[f"{y}_min"])} to {number(row[f"{y}_max"])})'
      f'<br>{size(row["artifact_bytes"])}'
      for _, row in settings.iterrows()
    ],
    hovertemplate='%{customdata}<extra></extra>',
    meta={'role': 'means', 'series': index},
    **shown,
  )


def _mark_float(
  figure: go.Figure, baseline: pd.Series, metric: str, tolerance: float
) -> None:
  low, high = baseline[f'{metric}_min'], baseline[f'{metric}_max']
  if high > low:
    figure.add_shape(
      name='float-range', type='rect', xref='paper', x0=0, x1=1,
      y0=low, y1=high, layer='below', line={'width': 0}, opacity=0.15,
    )  # fmt: skip
  limit = baseline[metric] * (1 + tolerance)
  figure.add_shape(
    name='limit', type='line', xref='paper', x0=0, x1=1, y0=limit, y1=limit,
    line={'width': 1.5, 'dash': 'dash'},
    label={
      'text': f'float + {share(tolerance)}',
      'textposition': 'start',
      'yanchor': 'bottom',
    },
  )  # fmt: skip


def is_wide(values: pd.Series) -> bool:
  """Whether values differ so much that their axis is to be logarithmic."""
  values = pd.to_numeric(values, errors='coerce').dropna()
  return bool(
    len(values) and values.min() > 0
    and values.max() / values.min() > _LOG_FROM
  )  # fmt: skip


def as_chart(figure: go.Figure) -> Chart:
  """Plain data and layout; the page has a theme of its own."""
  figure.update_layout(template='none')
  chart = json.loads(figure.to_json())
  chart['layout'].pop('template', None)
  return chart


def finite(value: float) -> float | None:
  """What JSON can hold: no NaN and no infinity."""
  return value if math.isfinite(value) else None
