"""One self-contained HTML file from runs: all sections, data and scripts."""

import base64
from collections.abc import Iterable, Sequence
import datetime
import functools
import gzip
from importlib import resources
import importlib.metadata
import json
from typing import Any

import jinja2
import pandas as pd
import plotly.offline

from qgan_jax.reports import charts, curves
from qgan_jax.reports.answer import answer, counted, share
from qgan_jax.reports.page_tables import (
  settings_on_page,
  sizes_on_page,
  trials_on_page,
)
from qgan_jax.reports.read import Run
from qgan_jax.reports.strips import strips
from qgan_jax.reports.tables import (
  CHECKPOINTS,
  comparisons_of,
  SCORES,
  settings_table,
  trials_table,
)

_SECTIONS = {
  'training': ('Training', 'Distances and losses while training.'),
  'stability': (
    'Stability',
    'Signs of a game out of balance: a discriminator that is always right, '
    'gradients or singular values that grow, classes that vanish.',
  ),
  'quantization': (
    'Quantization',
    'What rounding does inside the networks, layer by layer.',
  ),
  'speed': (
    'Speed',
    'Of training, evaluations left out. It says nothing of how fast the packed '
    'generator draws.',
  ),
  'other': ('Other metrics', 'Everything else that was logged.'),
}
_DIVERSITY = ('precision', 'recall', 'density', 'coverage')


def render(
  runs: Sequence[Run],
  *,
  title: str,
  tolerance: float,
  command: str,
  version: str = '',
  library: bool = True,
) -> str:
  """Makes the page.

  Args:
    runs: of `read_runs`, at least one.
    title: of the page.
    tolerance: how much worse than float counts as close; 0.1 is 10 %.
    command: the command line that made this page, shown on it.
    version: of the data, for a page that follows a running sweep.
    library: whether Plotly and the page's own script are in it; an open page
      that renews itself has them already.

  Returns:
    HTML that needs nothing else.
  """
  trials = trials_table(runs)
  by_name = {run.name: run for run in runs}
  # In the table's order, by setting.
  runs = [by_name[name] for name in trials['trial']]
  settings = trials['setting'].tolist()
  names = list(dict.fromkeys(settings))

  drawn: dict[str, charts.Chart] = {}
  groups = comparisons_of(trials)
  comparisons = [
    _comparison(name, group, checkpoint, i, tolerance, drawn)
    for i, (name, group) in enumerate(groups.items())
    for checkpoint in CHECKPOINTS
  ]

  panels = curves.panels(runs)
  for index, panel in enumerate(panels):
    panel['index'] = index
    panel['name'] = panel['title'].lower().replace(' ', '-').replace('/', '-')
    panel['heat'] = curves.heat_map(panel, runs, settings)
    panel['once'] = curves.is_once(panel, runs)
  shown = {panel['section'] for panel in panels}
  sections = [
    {
      'id': key,
      'title': heading,
      'text': text,
      'panels': [panel for panel in panels if panel['section'] == key],
    }
    for key, (heading, text) in _SECTIONS.items()
    if key in shown
  ]
  # Float first, so that the others can be compared with it.
  order = trials['x'].sort_values(ascending=False, kind='stable').index
  pictures = strips([runs[i] for i in order], [settings[i] for i in order])
  seeds = sorted({strip.seed for strip in pictures}, key=str)
  payload = {
    'charts': drawn,
    'panels': panels,
    'settings': names,
    'runs': [
      {
        'name': run.name,
        'setting': names.index(setting),
        'seed': run.config.get('seed', '?'),
      }
      for run, setting in zip(runs, settings, strict=True)
    ],
    'curves': curves.points(runs),
  }
  links = [('answer', 'Answer')]
  links += [('samples', 'Samples')] if pictures else []
  links += [('trials', 'Trials')]
  links += [
    (key, heading) for key, (heading, _) in _SECTIONS.items() if key in shown
  ]
  links += [('made', 'How it was made')]
  now = datetime.datetime.now().astimezone()
  folder = resources.files('qgan_jax.reports')
  environment = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
  )
  template = environment.from_string(
    folder.joinpath('page.html.jinja').read_text('utf-8')
  )
  return template.render(
    title=title,
    version=version,
    css=folder.joinpath('page.css').read_text('utf-8'),
    script='\n'.join(
      folder.joinpath(name).read_text('utf-8')
      for name in ('charts.js', 'page.js')
    ),
    sections=links,
    overview=_overview(trials),
    comparisons=comparisons,
    several=len(groups) > 1,
    strips=pictures,
    strips_left=sum(bool(run.samples) for run in runs) - len(pictures),
    seeds=seeds,
    tables=[trials_on_page(trials), sizes_on_page(trials)],
    curves=sections,
    provenance=[_provenance(group) for group in groups.values()],
    commands=[(run.name, run.command) for run in runs if run.command],
    made=(
      f'Made {now:%Y-%m-%d %H:%M %Z} by qgan_jax '
      f'{importlib.metadata.version("qgan_jax")}: {command}'
    ),
    payload=_packed(json.dumps(payload, separators=(',', ':'))),
    library=_library() if library else '',
  )


def _packed(text: str) -> str:
  """Text as gzip in base64, for the page to inflate."""
  data = gzip.compress(text.encode(), mtime=0)
  return base64.b64encode(data).decode()


@functools.cache
def _library() -> str:
  return _packed(plotly.offline.get_plotlyjs())


def _overview(trials: pd.DataFrame) -> str:
  data = ', '.join(sorted(set(trials['dataset'])))
  return (
    f'{len(trials)} {"trial" if len(trials) == 1 else "trials"} '
    f'({counted(trials["state"])}) of '
    f'{trials["setting"].nunique()} settings on {data}.'
  )


def _comparison(
  name: str,
  trials: pd.DataFrame,
  checkpoint: str,
  index: int,
  tolerance: float,
  drawn: dict[str, charts.Chart],
) -> dict[str, Any]:
  """Answer, charts and table of trials that can be compared."""
  settings = settings_table(trials, checkpoint)
  scores = with_scores_of(trials, checkpoint)
  score = charts.TITLES.get(first(trials['score_name']) or '', 'score')
  names = {'bits': f'score-by-bits-{checkpoint}-{index}'}
  if len(settings):
    drawn[names['bits']] = charts.score_by_bits(
      settings, scores, metric='score', title=score, tolerance=tolerance
    )
    names['bytes'] = f'score-by-bytes-{checkpoint}-{index}'
    drawn[names['bytes']] = charts.score_by_bytes(settings, scores, title=score)
    for metric in _DIVERSITY:
      names[metric] = f'{metric}-{checkpoint}-{index}'
      drawn[names[metric]] = charts.score_by_bits(
        settings, scores, metric=metric, title=charts.TITLES[metric]
      )
  floats = len(settings) and settings['is_float'].any()
  return {
    'name': name,
    'checkpoint': checkpoint,
    'scored': len(settings) > 0,
    'answer': answer(settings, trials, tolerance=tolerance),
    'charts': names,
    'attributes': {
      key: _attribute('data-chart', value) for key, value in names.items()
    },
    'float_note': (
      f' Shaded: float’s range. Dashed: {share(tolerance)} above its mean.'
      if floats
      else ''
    ),
    'table': settings_on_page(
      settings, f'settings-{checkpoint}-{index}', score
    ),
  }


def _attribute(name: str, value: str) -> Any:
  return jinja2.utils.markupsafe.Markup('{}="{}"').format(name, value)


def with_scores_of(trials: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
  """The trials with scores of one checkpoint, named without its prefix."""
  chosen = {f'{checkpoint}_{name}': name for name in SCORES}
  chosen[f'{checkpoint}_step'] = 'step_scored'
  table = trials.rename(columns=chosen)
  for name in SCORES:
    table[name] = pd.to_numeric(table[name], errors='coerce')
  return table


def first(values: Iterable[Any]) -> Any:
  """The first that is known, or None."""
  return next((v for v in values if isinstance(v, str) and v), None)


def _provenance(trials: pd.DataFrame) -> list[tuple[str, str]]:
  """What a reader needs to reproduce these numbers."""
  scored = trials[trials['extractor'].notna()]
  facts = [('Data set', _values(trials['dataset']))]
  if len(scored):
    one = scored.iloc[0]
    accuracy = one['extractor_accuracy']
    known = f', {accuracy:.1%} accurate' if accuracy == accuracy else ''
    facts += [
      (
        'Scores',
        f'{charts.TITLES[one["score_name"]]} and the others in the features of '
        f'{one["extractor"]}, hash {one["extractor_hash"]}{known}; '
        f'resize: {one["extractor_resize"]}',
      ),
      ('Reference', _values(scored['reference'])),
      ('Weights', _values(scored['weights'])),
      (
        'Images',
        f'{_values(scored["num_fake"])} generated against '
        f'{_values(scored["num_real"])} real ones',
      ),
      (
        'Images of either kind for precision, recall, density, coverage',
        _values(scored['num_neighbours']),
      ),
      ('Seeds of the scores', _values(scored['score_seed'])),
    ]
  facts += [
    ('Seeds of the training', _values(trials['seed'])),
    ('Steps', _values(trials['steps'])),
    ('Devices, as JAX names them', _values(trials['devices'])),
    ('Versions', _values(trials['versions'], '; ')),
    (
      'Spread',
      'lowest to highest over seeds; std is that of a sample (n − 1)',
    ),
  ]
  return [(name, text) for name, text in facts if text]


def _values(values: pd.Series, joint: str = ', ') -> str:
  found = [v for v in dict.fromkeys(values.dropna()) if v != '']
  return joint.join(
    f'{v:,.0f}' if isinstance(v, float) else str(v) for v in found
  )
