"""Rules: network × role × module path → quantizer, bits, granularity, range.

Rules are one text, such as

  generator/weights/up2: bits=8 quantizer=lsq; discriminator/*/logit: bits=32

Each is `NETWORK/ROLE/PATH: key=value key=value`, rules parted by semicolons.
All three parts are glob patterns; a `*` in PATH goes over slashes too. The
roles are weights, activations and gradients; a pattern catches gradients only
where it says so, `gradients`. The last rule that catches a layer wins, key by
key. What no rule says is the network's default.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import difflib
import fnmatch
import math
from typing import Any, NamedTuple

from qgan_jax import quantizers
from qgan_jax.errors import UserError
from qgan_jax.precision.activations import RANGES
from qgan_jax.precision.layers import Layer
from qgan_jax.precision.network import Precision
from qgan_jax.precision.spec import Bits, FLOAT_BITS, QuantizerSpec, ROLES

NETWORKS = ('generator', 'discriminator')
REGISTRIES = {
  'weights': quantizers.WEIGHTS,
  'activations': quantizers.ACTIVATIONS,
  'gradients': quantizers.GRADIENTS,
}


class Rule(NamedTuple):
  """One rule.

  Attributes:
    network: pattern of the network.
    role: pattern of the role.
    path: pattern of the module path.
    settings: what it says, by key.
    text: as it was written.
  """

  network: str
  role: str
  path: str
  settings: dict[str, Any]
  text: str

  def catches(self, network: str, role: str, path: str) -> bool:
    """Whether it speaks of a layer's role."""
    if role == 'gradients' != self.role:
      return False
    patterns = zip((network, role, path), self[:3], strict=True)
    return all(fnmatch.fnmatchcase(*pair) for pair in patterns)


class Choice(NamedTuple):
  """What one layer's role is quantized with: a line of the table.

  Attributes:
    network: 'generator'….
    layer: its module path.
    role: one of `ROLES`.
    quantizer: its name, '' for float.
    bits: its width, 32 for float.
    per_channel: whether each output channel has its own scale.
    ranges: of activations, one of `RANGES`, 'learned', or 'first batch' where
      a learned quantizer has the network's own input; '' of the rest.
    shape: of the tensor, without the batch.
    rule: the last rule that caught it, '' for the default.
  """

  network: str
  layer: str
  role: str
  quantizer: str
  bits: float
  per_channel: bool
  ranges: str
  shape: tuple[int, ...]
  rule: str


@dataclasses.dataclass(frozen=True)
class Defaults:
  """What a network's layers get where no rule speaks.

  Attributes:
    precision: its quantizers, by role.
    bits: their widths, plain numbers.
    first_last_bits: of weights and activations of the layers called first and
      last; None for those of the rest.
  """

  precision: Precision
  bits: Bits
  first_last_bits: int | None = None


def _bits(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(text)
  return int(value) if value.is_integer() else value


def _flag(text: str) -> bool:
  return {'true': True, 'false': False}[text.lower()]


def _range(text: str) -> str:
  return RANGES[RANGES.index(text)]


_SETTINGS: dict[str, tuple[Callable[[str], Any], str]] = {
  'bits': (_bits, 'a whole number from 1 to 16, or 32 for float'),
  'quantizer': (str, 'the name of a quantizer'),
  'per_channel': (_flag, 'true or false'),
  'ranges': (_range, f'one of {", ".join(RANGES)}'),
}


def parse_rules(text: str | None) -> tuple[Rule, ...]:
  """Reads rules.

  Args:
    text: as in this module's docstring; None or blank for none.

  Raises:
    UserError: it is not as there.
  """
  parts = (part.strip() for part in (text or '').split(';'))
  return tuple(_parse_rule(part) for part in parts if part)


def _parse_rule(text: str) -> Rule:
  where, colon, said = text.partition(':')
  patterns = where.strip().split('/', 2)
  if not colon or len(patterns) < 3 or not all(patterns) or not said.strip():
    raise UserError(
      f'precision.rules: {text!r} is not NETWORK/ROLE/PATH: key=value; write '
      'for example generator/weights/up0: bits=8 quantizer=lsq'
    )
  network, role, path = patterns
  _some(network, NETWORKS, 'network', text)
  _some(role, ROLES, 'role', text)
  settings = {}
  for pair in said.split():
    key, _, value = pair.partition('=')
    if key not in _SETTINGS:
      raise UserError(
        f'precision.rules: {text!r}: there is no {key!r}{_hint(key, _SETTINGS)}'
        f'; the keys are {", ".join(_SETTINGS)}'
      )
    read, allowed = _SETTINGS[key]
    try:
      settings[key] = read(value)
    except (ValueError, KeyError):
      raise UserError(
        f'precision.rules: {text!r}: {key} takes {allowed}, not {value!r}'
      ) from None
  return Rule(network, role, path, settings, text)


def _some(pattern: str, names: Sequence[str], kind: str, text: str) -> None:
  if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
    raise UserError(
      f'precision.rules: {text!r}: no {kind} is {pattern!r}'
      f'{_hint(pattern, names)}; there are {", ".join(names)}'
    )


def _hint(name: str, names: Any) -> str:
  nearest = difflib.get_close_matches(name, list(names), n=1)
  return f', did you mean {nearest[0]!r}?' if nearest else ''


def resolve_rules(
  layers: Mapping[str, Sequence[Layer]],
  defaults: Mapping[str, Defaults],
  rules: Sequence[Rule] = (),
) -> tuple[dict[str, Precision], dict[str, Bits], list[Choice]]:
  """Decides about every layer and role of the networks.

  Args:
    layers: of each network, as `find_layers` returns them.
    defaults: of each network.
    rules: the last that catches a layer wins.

  Returns:
    By network, its precision; its bits, plain numbers, one for all layers of a
    role where they agree without a rule and a dictionary otherwise; and the
    table. What has 32 bits has no quantizer: it is exactly in float.

  Raises:
    UserError: a rule catches nothing, or says what its layers cannot have.
  """
  precisions, bits, table = {}, {}, []
  for network, found in layers.items():
    choices = [
      _choose(network, layer, role, found, defaults[network], rules)
      for layer in found
      for role in layer.roles
    ]
    table += choices
    precisions[network], bits[network] = _together(
      choices, {layer.path: layer for layer in found}, defaults[network]
    )
  for rule in rules:
    caught = any(rule.catches(c.network, c.role, c.layer) for c in table)
    if not caught:
      raise UserError(
        f'precision.rules: {rule.text!r} catches nothing; the layers are '
        + '; '.join(
          f'{network}: {", ".join(layer.path or "(itself)" for layer in found)}'
          for network, found in layers.items()
        )
      )
  return precisions, bits, table


def _choose(
  network: str,
  layer: Layer,
  role: str,
  layers: Sequence[Layer],
  defaults: Defaults,
  rules: Sequence[Rule],
) -> Choice:
  default = getattr(defaults.precision, role)
  n: Any = getattr(defaults.bits, role)
  n = FLOAT_BITS if default is None or n is None else n
  called = [other.path for other in layers if other.inputs is not None]
  ends = called[:1] + called[-1:]
  is_input = role == 'activations' and layer.path in called[:1]
  grid = default is not None and default.name == 'grid'
  if role != 'gradients' and n < FLOAT_BITS and not grid:
    if layer.path in ends and defaults.first_last_bits is not None:
      n = defaults.first_last_bits
    if is_input and n < FLOAT_BITS:
      n = max(n, defaults.precision.input_bits)
  spec = default or QuantizerSpec(_FALLBACK[role])
  settings: dict[str, Any] = {
    'bits': n,
    'quantizer': spec.name,
    'per_channel': spec.axis is not None,
    'ranges': spec.ranges
    or ('moving' if defaults.precision.momentum else 'dynamic'),
  }
  last = ranged = None
  for rule in rules:
    if rule.catches(network, role, layer.path):
      settings |= rule.settings
      last = rule
      ranged = rule if 'ranges' in rule.settings else ranged
      _check(rule, role, settings)
  quantizer = quantizers.by_name(settings['quantizer'])
  if ranged and quantizer.learned and role == 'activations':
    raise UserError(
      f'precision.rules: {ranged.text!r}: the activations of the {network} '
      f'have {settings["quantizer"]}, which learns its range; say '
      'quantizer=affine as well'
    )
  ranges = ''
  if role == 'activations' and settings['bits'] < FLOAT_BITS:
    ranges = settings['ranges']
    if quantizer.learned:
      ranges = 'first batch' if is_input else 'learned'
  quantized = settings['bits'] < FLOAT_BITS
  return Choice(
    network,
    layer.path,
    role,
    settings['quantizer'] if quantized else '',
    settings['bits'],
    role == 'weights' and settings['per_channel'] and quantized,
    ranges,
    layer.shape(role),
    last.text if last else '',
  )


# What a rule that says bits alone gives a role that is in float by default.
_FALLBACK = {
  'weights': 'uniform',
  'activations': 'affine',
  'gradients': 'dorefa_gradient',
}


def _check(rule: Rule, role: str, settings: Mapping[str, Any]) -> None:
  name, n = settings['quantizer'], settings['bits']
  names = REGISTRIES[role]
  if name not in names:
    raise UserError(
      f'precision.rules: {rule.text!r}: {role} have no quantizer {name!r}'
      f'{_hint(name, names)}; there are {", ".join(names)}'
    )
  if name != 'grid' and not (
    n == FLOAT_BITS or (type(n) is int and 1 <= n <= 16)
  ):
    raise UserError(
      f'precision.rules: {rule.text!r}: bits takes {_SETTINGS["bits"][1]}, not '
      f'{n}'
    )


def _together(
  choices: Sequence[Choice], layers: Mapping[str, Layer], defaults: Defaults
) -> tuple[Precision, Bits]:
  """The precision and the bits that a network's choices amount to."""
  base = defaults.precision
  exceptions = []
  fields: dict[str, Any] = {'sparsity': defaults.bits.sparsity}
  for role in ROLES:
    mine = [choice for choice in choices if choice.role == role]
    default = getattr(base, role)
    specs = {c.layer: _spec(c, layers[c.layer], default) for c in mine}
    if not any(specs.values()):
      default = None
    exceptions += [
      (role, path, spec) for path, spec in specs.items() if spec != default
    ]
    base = dataclasses.replace(base, **{role: default})
    plain = all(not c.rule for c in mine)
    ends = defaults.first_last_bits is not None and role != 'gradients'
    fields[role] = (
      getattr(defaults.bits, role)
      if plain and not ends
      else {choice.layer: choice.bits for choice in mine}
    )
  return dataclasses.replace(base, exceptions=tuple(exceptions)), Bits(**fields)


def _spec(
  choice: Choice, layer: Layer, default: QuantizerSpec | None
) -> QuantizerSpec | None:
  if not choice.quantizer:
    return None
  axis = layer.channel_axis if choice.per_channel else None
  ranges = choice.ranges if choice.ranges in RANGES else None
  if not choice.rule and default is not None:
    ranges = default.ranges
  return QuantizerSpec(choice.quantizer, axis, ranges)


def format_table(table: Sequence[Choice]) -> str:
  """The table as text, one line for every layer and role that has a choice."""
  rows = [('network', 'layer', 'role', 'bits', 'quantizer', 'range', 'shape')]
  for c in table:
    if c.role == 'gradients' and not c.quantizer:
      continue
    name = c.quantizer or 'float'
    rows.append(
      (
        c.network,
        c.layer or '(itself)',
        c.role,
        f'{c.bits:g}',
        f'{name} per channel' if c.per_channel else name,
        c.ranges or '-',
        '×'.join(map(str, c.shape)) + (f'  ← {c.rule}' if c.rule else ''),
      )
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(map(str.ljust, row, widths)).rstrip() for row in rows
  )
