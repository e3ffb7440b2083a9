"""The main charts once more, as PNG, SVG and PDF for a paper."""

from pathlib import Path
import textwrap
from typing import Any

import matplotlib
from matplotlib import ticker
from matplotlib.figure import Figure
import pandas as pd

from qgan_jax.reports.charts import is_wide, round_size

# Okabe and Ito, https://jfly.uni-koeln.de/color/: safe for the colour-blind.
COLOURS = (
  '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#555555'
)  # fmt: skip
_MARKERS = 'osD^Xv*'
_FORMATS = ('png', 'svg', 'pdf')
_STYLE: Any = {
  'font.size': 8,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'pdf.fonttype': 42,  # Text stays text, as conferences ask.
  'svg.fonttype': 'none',
  'svg.hashsalt': 'qgan_jax',
}


def save_figures(
  settings: pd.DataFrame,
  trials: pd.DataFrame,
  folder: Path,
  *,
  score: str,
  suffix: str = '',
) -> None:
  """Writes score-by-bits, score-by-bytes and diversity in three formats.

  Args:
    settings: of `settings_table`.
    trials: of the same comparison and checkpoint; scores without prefix.
    folder: where they go.
    score: what the score is called.
    suffix: of the names.
  """
  with matplotlib.rc_context(_STYLE):
    one = _panel_figure(1, 1)
    _draw(one.axes[0], settings, trials, 'x', 'score', score)
    _finish(one, folder / f'score-by-bits{suffix}')
    one = _panel_figure(1, 1)
    axes = one.axes[0]
    front = settings[settings['pareto']].sort_values('artifact_bytes')
    axes.step(
      front['artifact_bytes'], front['score'], where='post', color='0.8', lw=4,
      label='Pareto front', zorder=0,
    )  # fmt: skip
    _draw(axes, settings, trials, 'artifact_bytes', 'score', score)
    for place, (_, row) in enumerate(front.iterrows()):
      # Alternately above and below the front, as on the page.
      side = 1 if place % 2 == 0 else -1
      axes.annotate(
        row['bits'],
        (row['artifact_bytes'], row['score']),
        xytext=(4 * side, 4 * side),
        textcoords='offset points',
        fontsize=6,
        ha='left' if side > 0 else 'right',
        va='bottom' if side > 0 else 'top',
      )
    _finish(one, folder / f'score-by-bytes{suffix}')
    four = _panel_figure(2, 2)
    names = ('precision', 'recall', 'density', 'coverage')
    for axes, name in zip(four.axes, names, strict=True):
      _draw(axes, settings, trials, 'x', name, name)
    _finish(four, folder / f'quality-and-diversity{suffix}')


def _panel_figure(rows: int, columns: int) -> Figure:
  # A column of a two-column paper is 3.3 inches wide.
  figure = Figure(figsize=(3.3 * columns, 2.4 * rows), layout='constrained')
  figure.subplots(rows, columns)
  return figure


def _draw(
  axes: Any,
  settings: pd.DataFrame,
  trials: pd.DataFrame,
  x: str,
  y: str,
  title: str,
) -> None:
  settings = settings.dropna(subset=[x, y])
  for i, series in enumerate(settings['series'].drop_duplicates()):
    means = settings[settings['series'] == series].sort_values(x)
    points = trials[trials['series'] == series]
    colour, marker = COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)]
    axes.errorbar(
      means[x],
      means[y],
      yerr=[means[y] - means[f'{y}_min'], means[f'{y}_max'] - means[y]],
      color=colour, marker=marker, ms=4, lw=1.2, capsize=2,
      ls='-' if x == 'x' else '',
      label='\n'.join(textwrap.wrap(series, 44)),
    )  # fmt: skip
    axes.plot(
      points[x], points[y], marker, color=colour, ms=4, mfc='none', alpha=0.6
    )
  if is_wide(trials[y]):
    axes.set_yscale('log')
    title += ' (log scale)'
  elif len(settings):
    axes.set_ylim(bottom=0)
  axes.set_ylabel(title)
  positive = bool((settings[x] > 0).all()) and len(settings)
  if positive:
    axes.set_xscale('log')
  if x == 'x':
    bits = sorted(settings[x].unique())
    axes.set_xticks(bits, [f'{b:g}' for b in bits])
    axes.set_xlabel('weight bits of G (32: float)')
  else:
    axes.set_xlabel('size of the packed generator')
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: round_size(value))
    axes.margins(x=0.12)
  axes.minorticks_off()
  if settings['series'].nunique() > 1 or x != 'x':
    axes.legend(frameon=False, fontsize=7)


def _finish(figure: Figure, path: Path) -> None:
  for ending in _FORMATS:
    # No date inside: the same runs give the same files.
    metadata = {'png': {}, 'svg': {'Date': None}, 'pdf': {'CreationDate': None}}
    figure.savefig(
      path.with_name(f'{path.name}.{ending}'),
      dpi=300,
      metadata=metadata[ending],
    )
