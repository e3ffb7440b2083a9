"""A trial's setting in few words: its config without the seed."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
import re
from typing import Any, NamedTuple

from qgan_jax.reports.read import DELIVERED, Run

FLOAT_BITS = 32
NETWORKS = ('generator', 'discriminator')
ROLES = ('weights', 'activations')
_BITS = tuple(f'{n}.bits.{r}' for n in NETWORKS for r in ROLES)
_GRADIENTS = 'precision.gradient_bits'
# Keys that are no part of a setting's words: bits have words of their own, and
# the others do not decide what is trained, or only by chance (the seed).
_IGNORED = (
  'seed', 'experiment', 'data.dir', 'data.standin', *_BITS, _GRADIENTS
)  # fmt: skip
_IGNORED_GROUPS = ('logging.', 'scores.')


class Setting(NamedTuple):
  """What trials that differ in nothing but their seeds have in common.

  Attributes:
    series: all but the number of bits: 'all bits equal', 'quantizer=lsq'.
    bits: of weights and activations, as a person writes it: '4', 'W4A8'.
    label: both, as short as it can be.
    x: bits of the generator's weights, the mean of them where rules give them
      different ones; None if not known, or if they are on a grid, which has an
      exponent instead.
    is_float: whether nothing is quantized.
    is_quantized: whether the delivered network is quantized, the generator.
  """

  series: str
  bits: str
  label: str
  x: float | None
  is_float: bool
  is_quantized: bool


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
    _setting(run, other, weights_alone=alone, d_stays=d_stays)
    for run, other in zip(runs, others, strict=True)
  ]


class _Rule(NamedTuple):
  """A precision rule that says bits or a quantizer.

  Attributes:
    network: pattern of the network.
    role: pattern of the role.
    bits: the bits that it says; float's if it says none.
  """

  network: str
  role: str
  bits: float

  def catches(self, role: str) -> bool:
    """Whether it may match this role of the delivered network."""
    return fnmatchcase(role, self.role) and any(
      fnmatchcase(name, self.network) for name in DELIVERED
    )


def _rules(config: dict[str, Any]) -> list[_Rule]:
  rules = []
  for text in str(config.get('precision.rules') or '').split(';'):
    where = re.match(r'\s*([^/:]+)/([^/:]+)/[^:]*:', text)
    bits = re.search(r'\bbits=(-?\d+(\.\d+)?)', text)
    if where and (bits or 'quantizer=' in text):
      n = float(bits[1]) if bits else FLOAT_BITS
      rules.append(_Rule(where[1], where[2], n))
  return rules


def _setting(
  run: Run, others: str, *, weights_alone: bool, d_stays: bool
) -> Setting:
  config = run.config
  bits = [config.get(path) for path in _BITS]
  known = [b for b in bits if isinstance(b, (int, float))]
  if len(known) < len(bits):
    label = others or 'bits unknown'
    return Setting(others or 'bits unknown', '?', label, None, False, False)
  g_w, g_a, d_w, d_a = known
  rules, gradients = _rules(config), config.get(_GRADIENTS)
  if not isinstance(gradients, (int, float)):
    gradients = FLOAT_BITS  # Earlier versions did not have them.
  lowest = min(*known, gradients, *(rule.bits for rule in rules))
  in_float = min(known) >= FLOAT_BITS
  as_one = (g_w, g_a) == (d_w, d_a) and not d_stays
  if in_float:
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
  more = ['rules'] if rules else []
  if gradients < FLOAT_BITS:
    more.append(f'gradients of {_bits(gradients)} bits')
  if more:
    text = ' + '.join((text, *more))
    pattern = ' + '.join((pattern or 'all bits equal', *more))
  series = ', '.join(filter(None, (pattern, others))) or 'all bits equal'
  label = ', '.join(filter(None, (text, others)))
  # The bits of weights that a rule may match are not those of the config.
  ruled = any(rule.catches('weights') for rule in rules)
  x = run.weight_bits if ruled else float(g_w)
  if config.get('precision.quantizer') == 'grid' and g_w < FLOAT_BITS:
    x = None  # What it has is an exponent.
  caught = (rule.bits for rule in rules for role in ROLES if rule.catches(role))
  return Setting(
    series,
    text,
    label,
    x,
    is_float=lowest >= FLOAT_BITS,
    is_quantized=min(g_w, g_a, *caught) < FLOAT_BITS,
  )


def _bits(bits: float) -> str:
  return 'float' if bits >= FLOAT_BITS else f'{bits:g}'


def _pair(weights: float, activations: float) -> str:
  return f'W{_bits(weights)}A{_bits(activations)}'


def _method(run: Run) -> str:
  """By what a run was quantized, which its config does not say."""
  if run.record.get('file') != 'qgan_jax.quantize':
    return 'training'
  # The quantizer and the bits, or the rules, are in the config.
  method, _, *rest = f'{run.record.get("arg")},'.rpartition(':')[2].split(',')
  known = ('w_bits=', 'a_bits=', 'size=', 'max_ratio=')
  return ' '.join([method, *(x for x in rest if x and not x.startswith(known))])


def _differences(runs: Sequence[Run]) -> list[str]:
  """For each run, its values of the keys in which the runs differ."""
  every = [run.config and run.config | {'method': _method(run)} for run in runs]
  configs = [config for config in every if config]
  paths = dict.fromkeys(path for config in configs for path in config)
  # A key that an older version did not have is no difference.
  varied = {
    path: [repr(config[path]) if path in config else '' for config in every]
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
