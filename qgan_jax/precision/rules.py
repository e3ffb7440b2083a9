"""Rules: quantizer, bits, granularity and range of single layers.

Rules are one text, such as

  generator/weights/up2: bits=8 quantizer=lsq; discriminator/*/logit: bits=32

Each rule is `NETWORK/ROLE/PATH: key=value key=value`; semicolons separate
rules.

- NETWORK, ROLE and PATH are glob patterns; a `*` in PATH also matches slashes.
- The roles are weights, activations and gradients. Only a rule whose role is
  spelled out as `gradients` matches gradients.
- A parameter that belongs to no layer is in float, unless a rule matches its
  path and ends with its exact name: `generator/weights/*/codes: bits=8`.
- If several rules match a layer, the last one wins, for each key separately.
- Whatever no rule sets is the network's default.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import fnmatch
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qgan_jax import quantizers
from qgan_jax.errors import did_you_mean, UserError
from qgan_jax.precision.activations import RANGES
from qgan_jax.precision.layers import Layer
from qgan_jax.precision.network import Precision
from qgan_jax.precision.spec import (
  allowed_bits,
  Bits,
  FLOAT_BITS,
  GRID_NEEDS_BITS,
  QuantizerSpec,
  ROLES,
  takes_bits,
)
from qgan_jax.precision.table import Choice

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
    settings: what the rule sets, by key.
    text: the rule as it was written.
  """

  network: str
  role: str
  path: str
  settings: dict[str, Any]
  text: str

  def catches(self, network: str, role: str, layer: Layer) -> bool:
    """Whether the rule matches one role of a layer."""
    if role == 'gradients' != self.role:
      return False
    names = (path.rpartition('/')[2] for path in (self.path, layer.path))
    if not layer.known and len({*names}) > 1:
      return False
    patterns = zip((network, role, layer.path), self[:3], strict=True)
    return all(fnmatch.fnmatchcase(*pair) for pair in patterns)


@dataclasses.dataclass(frozen=True)
class Defaults:
  """What the layers of a network get where no rule matches.

  Attributes:
    precision: quantizers, by role.
    bits: their widths, plain numbers.
    input_quantizer: of the network's own input. None means the one of the other
      activations, or 'affine' if that does not support the bits of the input.
    start_step: number of steps in float before anything is quantized.
  """

  precision: Precision
  bits: Bits
  input_quantizer: str | None = None
  start_step: int = 0


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


def parse_rules(text: str | None, networks: Iterable[str]) -> tuple[Rule, ...]:
  """Parses rules.

  Args:
    text: rules in the syntax of this module's docstring; None or blank for
      none.
    networks: names of the existing networks.

  Raises:
    UserError: the syntax is wrong, or a rule names a network that does not
      exist.
  """
  parts = (part.strip() for part in (text or '').split(';'))
  return tuple(_parse_rule(part, [*networks]) for part in parts if part)


def _parse_rule(text: str, networks: Sequence[str]) -> Rule:
  where, colon, said = text.partition(':')
  patterns = where.strip().split('/', 2)
  if not colon or len(patterns) < 3 or not all(patterns) or not said.strip():
    raise UserError(
      f'precision.rules: {text!r} is not NETWORK/ROLE/PATH: key=value; write '
      'for example generator/weights/up0: bits=8 quantizer=lsq'
    )
  network, role, path = patterns
  _some(network, networks, 'network', text)
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


def _hint(name: str, names: Iterable[str]) -> str:
  hint = did_you_mean(name, names)
  return hint and f', {hint}'


def resolve_rules(
  layers: Mapping[str, Sequence[Layer]],
  defaults: Mapping[str, Defaults],
  rules: Sequence[Rule] = (),
) -> tuple[dict[str, Precision], dict[str, Bits], list[Choice]]:
  """Determines quantizer and bits for every layer and role of the networks.

  Args:
    layers: of each network, as `find_layers` returns them.
    defaults: of each network.
    rules: if several match a layer, the last one wins.

  Returns:
    By network, its precision; by network, its bits; and the table of all
    layers. Bits are plain numbers: one for all layers of a role if no rule
    matches any of them, else a dictionary by layer. A layer of 32 bits has no
    quantizer: it is exactly in float.

  Raises:
    UserError: a rule matches nothing, or sets what its layers do not support.
  """
  precisions, bits, table = {}, {}, []
  for network, found in layers.items():
    choices = [
      _choose(network, layer, role, defaults[network], rules)
      for layer in found
      for role in layer.roles
    ]
    table += choices
    precisions[network], bits[network] = _together(
      choices, {layer.path: layer for layer in found}, defaults[network]
    )
  for rule in rules:
    caught = any(
      rule.catches(network, role, layer)
      for network, found in layers.items()
      for layer in found
      for role in layer.roles
    )
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
  defaults: Defaults,
  rules: Sequence[Rule],
) -> Choice:
  is_input = role == 'activations' and layer.reads_input
  spec, n = _default(role, defaults, is_input=is_input)
  settings: dict[str, Any] = {
    'bits': n,
    'quantizer': spec.name,
    'per_channel': spec.axis is not None,
    'ranges': spec.ranges
    or ('moving' if defaults.precision.momentum else 'dynamic'),
  }
  said: dict[str, Rule] = {}  # The rule that decides, by key.
  last = None
  for rule in rules:
    if rule.catches(network, role, layer):
      settings |= rule.settings
      said |= dict.fromkeys(rule.settings, rule)
      last = rule
      _check_name(rule, role, settings['quantizer'])
  name = settings['quantizer']
  quantizer = quantizers.by_name(name)
  n = settings['bits']
  if 'quantizer' in said and 'bits' not in said and n < FLOAT_BITS:
    if name == 'grid' != spec.name:
      raise UserError(
        f'precision.rules: {said["quantizer"].text!r}: {GRID_NEEDS_BITS}'
      )
    n = quantizer.fixed_bits or n
  if not layer.known and not said.keys() & {'bits', 'quantizer'}:
    n = FLOAT_BITS
  if name != 'grid' and not takes_bits(name, n):
    why = f'precision.rules: {last.text!r}' if last else f'bits={n}'
    raise UserError(
      f'{why}: the {role} of {network}/{layer.path} cannot have bits={n}: they '
      f'take {allowed_bits(name)}'
    )
  quantized = n < FLOAT_BITS
  ranges = ''
  if role == 'activations' and quantized:
    if layer.transformed:
      place = f'{network}/activations/{layer.path}'
      raise UserError(
        f'{place} cannot be quantized inside of a transformation (nn.scan, '
        'nn.vmap, nn.remat, nn.jit…): call the layer without it, or leave its '
        f"input in float, rules='{place}: bits=32'"
      )
    ranges = range_of(quantizer, settings['ranges'], is_input=is_input)
    # A rule for all layers may set ranges that the input's quantizer has not.
    own = is_input and defaults.input_quantizer and 'quantizer' not in said
    if 'ranges' in said and ranges != settings['ranges'] and not own:
      raise UserError(
        f'precision.rules: {said["ranges"].text!r}: the activations of the '
        f'{network} have {name}, whose range is {_WHY[ranges]}; say '
        'quantizer=affine as well'
      )
  # Rows of weights are their output channels: blocks lie in single ones.
  per_channel = quantizer.of_rows or settings['per_channel']
  return Choice(
    network,
    layer.path,
    role,
    name if quantized else '',
    n,
    role == 'weights'
    and quantized
    and per_channel
    and name not in quantizers.PER_TENSOR,
    ranges,
    layer.shape(role),
    last.text if last else '',
    defaults.start_step if quantized else None,
  )


def _default(
  role: str, defaults: Defaults, *, is_input: bool
) -> tuple[QuantizerSpec, Any]:
  """(quantizer, bits) of a layer's role that no rule speaks of."""
  spec: QuantizerSpec | None = getattr(defaults.precision, role)
  n: Any = getattr(defaults.bits, role)
  if spec is None or n is None:
    spec, n = spec or QuantizerSpec(_FALLBACK[role]), FLOAT_BITS
  if spec.name == 'grid':
    return spec, n
  if n < FLOAT_BITS:
    n = spec.quantizer.fixed_bits or n
  if is_input:
    n = max(n, defaults.precision.input_bits)
    name = defaults.input_quantizer or spec.name
    name = name if takes_bits(name, n) else _FALLBACK[role]
    spec = dataclasses.replace(spec, name=name)
  return spec, n


def range_of(
  quantizer: quantizers.Quantizer, ranges: str, *, is_input: bool
) -> str:
  """Where `Precision` takes the range of an activation from, in a word."""
  if quantizer.learned:
    return 'first batch' if is_input else 'learned'
  if quantizer.from_range is not None:
    return ranges
  x = jax.ShapeDtypeStruct((1,), jnp.float32)
  bits = jax.ShapeDtypeStruct((), jnp.float32)
  return 'fitted' if jax.eval_shape(quantizer.fit, x, bits) else 'fixed'


# What the message says of a range that a rule cannot change.
_WHY = {
  'first batch': 'that of the first batch',
  'learned': 'learned',
  'fitted': 'fitted to each batch',
  'fixed': 'fixed by its definition',
}


# The quantizer of a role that is in float by default, where a rule sets only
# `bits`; and of a network's input whose own quantizer has too few bits.
_FALLBACK = {
  'weights': 'uniform',
  'activations': 'affine',
  'gradients': 'dorefa_gradient',
}


def _check_name(rule: Rule, role: str, name: str) -> None:
  names = REGISTRIES[role]
  if name not in names:
    raise UserError(
      f'precision.rules: {rule.text!r}: {role} have no quantizer {name!r}'
      f'{_hint(name, names)}; there are {", ".join(names)}'
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
    if default and not default.per_channel:
      default = dataclasses.replace(default, axis=None)
    specs = {c.layer: _spec(c, layers[c.layer], default) for c in mine}
    if not any(specs.values()):
      default = None
    # `Precision` takes a parameter of no layer for a weight if it is named.
    exceptions += [
      (role, path, spec)
      for path, spec in specs.items()
      if (spec != default if layers[path].known else spec)
    ]
    base = dataclasses.replace(base, **{role: default})
    if any(choice.rule for choice in mine):
      fields[role] = {choice.layer: choice.bits for choice in mine}
    elif getattr(defaults.bits, role) is None:
      fields[role] = None
    else:
      _, fields[role] = _default(role, defaults, is_input=False)
  precision = dataclasses.replace(
    base,
    exceptions=tuple(exceptions),
    input_layers=tuple(path for path, x in layers.items() if x.reads_input),
  )
  return precision, Bits(**fields)


def _spec(
  choice: Choice, layer: Layer, default: QuantizerSpec | None
) -> QuantizerSpec | None:
  if not choice.quantizer:
    return None
  axis = layer.channel_axis if choice.per_channel else None
  ranges = choice.ranges if choice.ranges in RANGES else None
  if not choice.rule and default and choice.quantizer == default.name:
    ranges = default.ranges
  return QuantizerSpec(choice.quantizer, axis, ranges)
