"""What the table of precision says, against the tensors themselves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import config as config_lib
from qgan_jax import models, post_training, quantizers
from qgan_jax.errors import UserError
from qgan_jax.precision import Bits, make_precision, Quantized
from qgan_jax.precision.diagnostics import observe
from qgan_jax.precision.layers import find_layers
from qgan_jax.precision.rules import (
  Defaults,
  parse_rules,
  resolve_rules,
)
from qgan_jax.precision.table import format_table
from qgan_jax.runs.precision import describe_schedule, plan_precision

SIZE = 128


class Net(nn.Module):
  """Both layers are given x; the first reads it, the other what is computed."""

  @nn.compact
  def __call__(self, x):
    y = nn.Dense(SIZE, name='first')(x)
    return y + nn.Dense(SIZE, name='inner')(x + 0 * y)


def resolve(text='', weights='uniform', activations='affine', bits=8, **own):
  layers = find_layers(Net(), jax.ShapeDtypeStruct((1, SIZE), jnp.float32))
  precision = make_precision(
    weights=weights,
    activations=activations,
    per_channel=False,
    ranges='moving',
    momentum=0.9,
    input_bits=8,
  )
  defaults = {
    name: Defaults(precision, Bits(bits, bits), input_quantizer=of_input, **own)
    for name, of_input in (('generator', None), ('discriminator', 'pixels'))
  }
  networks = dict.fromkeys(defaults, layers)
  return resolve_rules(networks, defaults, parse_rules(text, networks))


def tensors():
  """Values on which a quantizer of one kind or another uses all its codes."""
  rng = np.random.default_rng(0)
  even = rng.uniform(-1, 1, (SIZE, SIZE))
  of_any_size = np.exp(rng.uniform(np.log(1e-30), 0, (SIZE, SIZE)))
  signs = rng.choice([-1, 1], (SIZE, SIZE))
  return np.float32([even, of_any_size * signs])


@pytest.mark.parametrize('name', [n for n in quantizers.NAMES if n != 'grid'])
def test_as_many_codes_occur_as_the_table_has_bits(name):
  @jax.jit
  def codes(x, bits):
    layer = {'kernel': x, 'bias': jnp.zeros(SIZE)}
    variables = {'params': {'first': layer, 'inner': layer}}
    found = {}
    for network, p in precisions.items():
      seen = observe(p, Net(), variables, {}, bits[network], {}, x)
      for role, layers in seen.items():
        for path, of_layer in layers.items():
          found[f'{network} {path} {role}'] = of_layer['codes']
    return found

  given = {
    role: name
    for role, names in (
      ('weights', quantizers.WEIGHTS),
      ('activations', quantizers.ACTIVATIONS),
    )
    if name in names
  }
  own = quantizers.by_name(name).widths
  for n in sorted({1, 2, 4, 8} & {*own} or {own[0]}):
    # A width that others have and this one has not: what it has by itself.
    asked = 8 if len(own) == 1 else n
    precisions, bits, table = resolve(bits=asked, **given)
    bits = jax.tree.map(jnp.float32, bits)
    counts = [
      {place: len(np.unique(c)) for place, c in codes(x, bits).items()}
      for x in tensors()
    ]
    for choice in table:
      if choice.role == 'gradients':
        continue
      place = f'{choice.network} {choice.layer} {choice.role}'
      count = max(found[place] for found in counts)
      assert 2 ** (choice.bits - 1) < count <= 2**choice.bits, choice
      if choice.quantizer == name and choice.layer == 'inner':
        assert choice.bits == n
      if choice.role == 'activations' and choice.layer == 'first':
        assert choice.bits >= 8
        if choice.network == 'discriminator':
          assert choice.quantizer == 'pixels'
        elif 8 in quantizers.by_name(given.get('activations', 'affine')).widths:
          assert choice.quantizer == given.get('activations', 'affine')
        else:
          assert choice.quantizer == 'affine'


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('affine', ['moving', 'moving', 'fixed', 'moving']),
    ('lsq', ['first batch', 'learned', 'fixed', 'learned']),
    ('uniform_mse', ['fitted', 'fitted', 'fixed', 'fitted']),
    ('xnor', ['moving', 'fitted', 'fixed', 'fitted']),
    ('mxint8', ['fitted', 'fitted', 'fixed', 'fitted']),
    ('dorefa_activation', ['fixed', 'fixed', 'fixed', 'fixed']),
  ],
)
def test_ranges_are_named_for_where_they_come_from(name, expected):
  precisions, bits, table = resolve(activations=name)
  found = [c.ranges for c in table if c.role == 'activations']
  assert found == expected
  # What the state holds of them: a moving average of each, and no other.
  x, n = tensors()[0], jax.tree.map(jnp.float32, bits['generator'])
  variables = Net().init(jax.random.key(0), x)
  ranges, _ = precisions['generator'].init(Net(), variables, n, x)
  assert len(ranges) == found[:2].count('moving')


def test_a_rule_has_the_last_word_about_the_input():
  rule = '*/activations/*: quantizer='
  _, _, table = resolve(f'{rule}mxfp4')
  assert {(c.quantizer, c.bits) for c in table if c.role == 'activations'} == {
    ('mxfp4', 4)
  }
  _, _, table = resolve(f'{rule}lsq_plus bits=3')
  assert {(c.quantizer, c.bits) for c in table if c.role == 'activations'} == {
    ('lsq_plus', 3)
  }
  # It says the bits of an input that is in float: the quantizer stays.
  _, _, table = resolve('discriminator/activations/first: bits=8', bits=32)
  assert [(c.quantizer, c.bits) for c in table if c.bits < 32] == [
    ('pixels', 8)
  ]
  _, _, table = resolve('*/activations/*: ranges=mse')
  assert [c.ranges for c in table if c.role == 'activations'] == [
    'mse', 'mse', 'fixed', 'mse'
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (
      {'text': '*/weights/inner: bits=3 quantizer=mxfp4'},
      'bits=3 quantizer=mxfp4.*generator/inner cannot.* 4 alone, .* with mxfp4',
    ),
    (
      {'text': '*/weights/inner: quantizer=apot', 'bits': 16},
      'from 1 to 8, .* with apot',
    ),
    (
      {'text': '*/activations/inner: ranges=mse', 'activations': 'xnor'},
      'have xnor, whose range is fitted to each batch',
    ),
    (
      {'text': '*/activations/*: quantizer=pixels ranges=mse'},
      'have pixels, whose range is fixed by its definition',
    ),
  ],
)
def test_what_a_quantizer_cannot_have_is_refused(settings, message):
  with pytest.raises(UserError, match=message):
    resolve(**settings)


def test_the_table_says_from_which_step_on():
  rule = '*/weights/first: bits=32'
  _, _, table = resolve(rule, start_step=8000)
  for choice in table:
    in_float = choice.role == 'gradients' or choice.rule
    assert choice.from_step == (None if in_float else 8000)
  text = format_table(table)
  assert 'pixels' in text

  layers = find_layers(Net(), jax.ShapeDtypeStruct((1, SIZE), jnp.float32))

  def said(string):
    config = config_lib.override(config_lib.base(), string)
    config = config_lib.resolve(config)
    networks = dict.fromkeys(('generator', 'discriminator'), layers)
    _, bits, _ = plan_precision(config, config, networks)
    return describe_schedule(config, bits)

  assert said('') == 'quantized from step 8,000 of 16,000'
  falling = 'steps=100,start_step=0,anneal_steps=40'
  assert said(f'bits=4,{falling}') == (
    'quantized from step 0 of 100, from 8 bits down to these in 40 steps'
  )
  assert said(falling) == 'quantized from step 0 of 100'  # From 8 bits to 8.
  # Six stretches of 133 steps for 8, 7 … 3 bits: step 999 is the 500th of them,
  # in the fourth. Of pruning, it is at t = 0.099: 0.9 · (1 − 0.901³) = 0.242.
  assert said('bits=2,steps=1000,anneal_steps=800').endswith(
    'in 800 steps, but the last step still has 5 bits where these are 2'
  )
  # Of the layer alone that a rule gives 2 bits; the others are annealed to 8.
  rule = 'precision.rules=generator/weights/first: bits=2'
  assert said(f'{rule},steps=1000,anneal_steps=800').endswith(
    'in 800 steps, but the last step still has 5 bits where these are 2'
  )
  assert said('steps=1000,sparsity=0.9,prune_start=900,prune_steps=1000') == (
    'quantized from step 500 of 1,000, but the last step still prunes 24.2% of '
    'the weights, not 90.0%'
  )
  for fits in (
    'bits=2,anneal_steps=499', 'sparsity=0.9,prune_steps=999',
    'quantizer=grid,bits=-6.3',
  ):  # fmt: skip
    assert 'still' not in said(f'steps=1000,{fits}')
  in_float = said('bits=2,steps=9,start_step=9,anneal_steps=9')
  assert in_float == 'in float for all 9 steps, and rounded afterwards'


GREYS = np.arange(256) / 127.5 - 1


@pytest.mark.parametrize(
  'said',
  [
    'ranges=moving',
    'ranges=dynamic',
    'ranges=mse',
    'bits=8',
    'bits=2',
    'activation_quantizer=lsq',
    'activation_quantizer=pact',
    'activation_quantizer=uniform',
    'activation_quantizer=stochastic',
    'activation_quantizer=xnor',
    'activation_quantizer=fp8_e4m3',
  ],
)
def test_every_grey_level_of_an_image_comes_through(said):
  config = config_lib.override(config_lib.base(channels=8), said)
  config = config_lib.resolve(config)
  module = models.make_discriminator(
    'dcgan', channels=8, norm='none', spectral_norm=False
  )
  shape = (4, 28, 28, 1)
  images = np.float32(np.resize(GREYS, shape))
  # The first batch is dark: neither black nor white is in it.
  first = np.float32(np.resize(GREYS[20:90], shape))
  layers = find_layers(module, jax.ShapeDtypeStruct(shape, jnp.float32), None)
  precisions, bits, _ = plan_precision(
    config,
    config,
    {'generator': layers, 'discriminator': layers},
    ['discriminator'],
  )
  precision = precisions['discriminator']
  bits = jax.tree.map(jnp.float32, bits['discriminator'])
  variables = module.init(jax.random.key(0), first, None)
  ranges, learned = precision.init(module, variables, bits, first, None)

  @jax.jit
  def first_input(ranges):
    found = {}

    def seen(path, x, params, n):
      quantizer = precision.spec('activations', path).quantizer
      found[path] = quantizer.apply(x, params, n)

    precision.apply(
      module, variables, ranges, bits, images, None,
      learned=learned, observe=seen,
    )  # fmt: skip
    return found[layers[0].path]

  def check(ranges):
    quantized = first_input(ranges)
    np.testing.assert_allclose(quantized, images, atol=1e-6)
    assert len(np.unique(quantized)) == 256

  check(ranges)
  network = Quantized(module, precision, bits, variables, ranges, learned)
  for method in post_training.RANGE_METHODS:
    calibrated = post_training.activation_ranges(
      network, first, None, method=method, batch_size=4
    )
    check({**ranges, **calibrated})
