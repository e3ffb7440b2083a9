"""How few bits are enough: a sentence, computed from the table."""

from typing import NamedTuple

import pandas as pd

from qgan_jax import records


class Answer(NamedTuple):
  """The answer to a report's main question.

  Attributes:
    headline: two or three words.
    sentence: the answer, with its numbers and their spread.
    notes: what limits it, such as missing scores or single seeds.
  """

  headline: str
  sentence: str
  notes: list[str]


def answer(
  settings: pd.DataFrame, trials: pd.DataFrame, *, tolerance: float
) -> Answer:
  """The fewest bits whose mean score is close to float's.

  Args:
    settings: of `settings_table`.
    trials: of the same comparison, for what is missing.
    tolerance: how much worse counts as close; 0.1 is 10 %.

  Returns:
    The answer, or why there is none.
  """
  missing = trials[trials['best_score'].isna()]
  notes = []
  if len(missing):
    notes.append(
      f'{len(missing)} of {len(trials)} trials have no score: '
      f'{counted(missing["state"])}.'
    )
  if settings.empty:
    return Answer('No score yet', 'No trial has been scored yet.', notes)
  notes += [
    f'{few[0].upper()}{few[1:]}.' for few in sorted({*trials['too_few']}) if few
  ]
  noise = settings[~settings['coverage'].map(records.has_learned)]
  if len(noise):
    notes.append(
      f'{len(noise)} of {len(settings)} settings have learned nothing, or draw '
      f'a few images again and again: less than {records.LEAST_COVERAGE:.0%} '
      'of the held-out images have a sample near them.'
    )
  if settings['seeds'].min() == 1:
    one = int((settings['seeds'] == 1).sum())
    notes.append(
      f'{one} of {len(settings)} settings have one seed only, and one seed has '
      'no spread: small differences say nothing.'
    )
  floats = settings[settings['is_float']]
  learned = settings.drop(noise.index)
  if floats.empty:
    sentence = 'There is no float run (bits=32) to compare with.'
    if len(learned):
      best = learned.loc[learned['score'].idxmin()]
      sentence += f' Best is {best["setting"]}: {describe(best)}.'
    return Answer('No float run', sentence, notes)
  baseline = floats.loc[floats['score'].idxmin()]
  if not records.has_learned(baseline['coverage']):
    return Answer(
      'Nothing learned',
      f'No number of bits can be judged by it: float itself has a coverage of '
      f'{baseline["coverage"]:.3f}, so it draws noise, or a few images. Train '
      'it until it draws something: longer, or with other settings.',
      notes,
    )
  percent = share(tolerance)
  quantized = learned[learned['is_quantized']]
  if quantized.empty:
    return Answer(
      'Only float',
      'There is no quantized generator yet that has learned. Float: '
      f'{describe(baseline)}.',
      notes,
    )
  limit = baseline['score'] * (1 + tolerance)
  close = quantized[quantized['score'] <= limit]
  if close.empty:
    near = quantized.loc[quantized['score'].idxmin()]
    worse = near['score'] / baseline['score'] - 1
    return Answer(
      'None of these',
      f'No setting comes within {percent} of float, {describe(baseline)}. '
      f'Nearest is {near["setting"]}, {share(worse)} worse: {describe(near)}.',
      notes,
    )
  chosen = close.sort_values(['x', 'artifact_bytes', 'score']).iloc[0]
  sentence = (
    f'The fewest bits with a mean score within {percent} of float’s are '
    f'{chosen["setting"]}: {describe(chosen)}, against {describe(baseline)} '
    'in float.'
  )
  if chosen['artifact_bytes'] == chosen['artifact_bytes']:
    sentence += (
      f' The packed generator takes {size(chosen["artifact_bytes"])}'
      f' instead of {size(baseline["artifact_bytes"])}.'
    )
  sentence += ''.join(
    f' {name.capitalize()} goes from {baseline[name]:.3f} to '
    f'{chosen[name]:.3f}.'
    for name in ('recall', 'coverage')
    if baseline[name] == baseline[name] and chosen[name] == chosen[name]
  )
  if chosen['seeds'] > 1 and chosen['score_max'] > limit:
    notes.append(f'Not every seed of {chosen["setting"]} is within {percent}.')
  return Answer(chosen['bits'], sentence, notes)


def counted(states: pd.Series) -> str:
  """How many there are of each, the most frequent first."""
  counts = states.value_counts().items()
  return ', '.join(f'{count} {state}' for state, count in counts)


def describe(row: pd.Series) -> str:
  """A mean score with its range over seeds."""
  text = number(row['score'])
  if row['seeds'] == 1:
    return f'{text} (1 seed)'
  low, high = number(row['score_min']), number(row['score_max'])
  return f'{text} ({low} to {high} over {row["seeds"]:.0f} seeds)'


def share(value: float) -> str:
  """A percentage."""
  return f'{100 * value:.3g}\N{NO-BREAK SPACE}%'


def number(value: float) -> str:
  """Three significant digits, without an exponent."""
  if value != value:
    return '–'
  if abs(value) >= 100:
    return f'{value:,.0f}'
  return f'{value:#.3g}'.rstrip('.') if value else '0'


def size(value: float) -> str:
  """Bytes for people: 1 kB is 1,000 of them."""
  for unit, factor in (('MB', 1e6), ('kB', 1e3)):
    if value >= factor:
      return f'{number(value / factor)} {unit}'
  return '–' if value != value else f'{value:.0f} B'
