"""A trial's setting in few words: its config without the seed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from qgan_jax.reports.read import Run

FLOAT_BITS = 32
NETWORKS = ('generator', 'discriminator')
ROLES = ('weights', 'activations')
_BITS = tuple(f'{n}.bits.{r}' for n in NETWORKS for r in ROLES)
# Keys that are no part of a setting's words: bits have words of their own, and
# the others do not decide what is trained, or only by chance (the seed).
_IGNORED = ('seed', 'experiment', 'data.dir', 'data.standin', *_BITS)
_IGNORED_GROUPS = ('logging.', 'scores.')


class Setting(NamedTuple):
  """What trials that differ in nothing but their seeds have in common.

  Attributes:
    series: all but the number of bits: 'all bits equal', 'quantizer=lsq'.
    bits: of weights and activations, as a person writes it: '4', 'W4A8'.
    label: both, as short as it can be.
    x: bits of the generator's weights; None if not known.
    is_float: whether nothing is quantized.
  """

  series: str
  bits: str
  label: str
  x: float | None
  is_float: bool


def settings_of(runs: Sequence[Run]) -> list[Setting]:
  """The setting of each run, in words that tell these runs apart."""
  others = _differences(runs)
  known = [
    tuple(float(run.config[path]) for path in _BITS)
    for run in runs
    if all(isinstance(run.config.get(path), (int, float)) for path in _BITS)
  ]
  quantized = {bits for bits in known if min(bits) < FLOAT_BITS}
  # Where only bits of weights vary, 8 bits throughout is W8A8 of that series.
  weights = {bits[::2] for bits in quantized}
  activations = {bits[1::2] for bits in quantized}
  alone = len(activations) == 1 and len(weights) > 1
  # And where D's bits do not vary, a G that has the same is of that series.
  d_stays = len(quantized) > 1 and len({bits[2:] for bits in quantized}) == 1
  return [
    _setting(run.config, other, weights_alone=alone, d_stays=d_stays)
    for run, other in zip(runs, others, strict=True)
  ]


def _setting(
  config: dict[str, Any], others: str, *, weights_alone: bool, d_stays: bool
) -> Setting:
  bits = [config.get(path) for path in _BITS]
  known = [b for b in bits if isinstance(b, (int, float))]
  if len(known) < len(bits):
    label = others or 'bits unknown'
    return Setting(others or 'bits unknown', '?', label, None, False)
  g_w, g_a, d_w, d_a = known
  is_float = min(known) >= FLOAT_BITS
  as_one = (g_w, g_a) == (d_w, d_a) and not d_stays
  if is_float:
    # Float is the baseline of every series.
    text, pattern = 'float', 'float' if weights_alone else ''
  elif as_one and g_w == g_a and not weights_alone:
    text, pattern = f'{g_w:g} {"bit" if g_w == 1 else "bits"}', ''
  elif as_one:
    text, pattern = _pair(g_w, g_a), f'A{_bits(g_a)}'
  else:
    text = _pair(g_w, g_a)
    if not d_stays:
      text = f'G {text} D {_pair(d_w, d_a)}'
    together = g_w == g_a and not weights_alone
    follows = 'as weights' if together else f'A{_bits(g_a)}'
    pattern = f'G {follows}, D {_pair(d_w, d_a)}'
  series = ', '.join(filter(None, (pattern, others))) or 'all bits equal'
  label = ', '.join(filter(None, (text, others)))
  return Setting(series, text, label, float(g_w), is_float)


def _bits(bits: float) -> str:
  return 'float' if bits >= FLOAT_BITS else f'{bits:g}'


def _pair(weights: float, activations: float) -> str:
  return f'W{_bits(weights)}A{_bits(activations)}'


def _differences(runs: Sequence[Run]) -> list[str]:
  """For each run, its values of the keys in which the runs differ."""
  configs = [run.config for run in runs if run.config]
  paths = dict.fromkeys(path for config in configs for path in config)
  # A key that an older version did not have is no difference.
  varied = {
    path: [repr(run.config[path]) if path in run.config else '' for run in runs]
    for path in paths
    if path not in _IGNORED
    and not path.startswith(_IGNORED_GROUPS)
    and len({repr(c[path]) for c in configs if path in c}) > 1
  }
  # A key that has the same values in both networks is named once.
  names: dict[str, list[str]] = {}
  for path, values in varied.items():
    short = path.rpartition('.')[2]
    clash = short in names and names[short] != values
    names[path if clash else short] = values
  return [
    ', '.join(
      f'{name}={values[i].strip(chr(39))}'
      for name, values in names.items()
      if values[i]
    )
    for i in range(len(runs))
  ]
