import math

from ml_collections import config_dict
import pytest

from qgan_jax import config as config_lib
from qgan_jax import quantizers
from qgan_jax.errors import UserError


def resolved(arg=None, **overrides):
  config = config_lib.override(config_lib.base(**overrides), arg)
  return config_lib.resolve(config)


def validated(arg=None, **overrides):
  config = resolved(arg, **overrides)
  config_lib.validate(config)
  return config


def bits(config):
  """(G weights, G activations, D weights, D activations)."""
  g, d = config.generator.bits, config.discriminator.bits
  return g.weights, g.activations, d.weights, d.activations


# What follows from the rest.


@pytest.mark.parametrize(
  ('arg', 'expected'),
  [
    ('', (8, 8, 8, 8)),
    ('bits=4', (4, 4, 4, 4)),
    ('bits=32', (32, 32, 32, 32)),
    ('bits=4,g_bits=2', (2, 2, 4, 4)),
    ('d_bits=2', (8, 8, 2, 2)),
    ('w_bits=2', (2, 8, 2, 8)),
    ('bits=4,a_bits=8', (4, 8, 4, 8)),
    ('g_bits=6,g_w_bits=3', (3, 6, 8, 8)),
    ('w_bits=6,d_w_bits=3', (6, 8, 3, 8)),
    ('bits=6,g_a_bits=1,d_a_bits=2', (6, 1, 6, 2)),
    # Equally specific keys that agree, and that a more specific one settles.
    ('g_bits=4,w_bits=4', (4, 4, 4, 8)),
    ('g_bits=4,a_bits=8,g_a_bits=8', (4, 8, 8, 8)),
    # The exponent of a grid speaks of weights alone.
    ('quantizer=grid,bits=-6', (-6, 8, -6, 8)),
    ('quantizer=ternary', (2, 8, 2, 8)),
    ('quantizer=ternary,a_bits=4', (2, 4, 2, 4)),
    ('quantizer=ternary,bits=32', (32, 32, 32, 32)),
    ('d_activation_quantizer=xnor', (8, 8, 8, 1)),
    ('quantizer=grid,bits=-6.5,a_bits=4', (-6.5, 4, -6.5, 4)),
    ('quantizer=grid,bits=-6,g_bits=-4', (-4, 8, -6, 8)),
    ('quantizer=grid,g_bits=-4,d_bits=-5,a_bits=4', (-4, 4, -5, 4)),
  ],
)
def test_the_most_specific_bits_win(arg, expected):
  config = validated(arg)
  assert bits(config) == expected
  assert [*map(type, bits(config))] == [*map(type, expected)]


@pytest.mark.parametrize(
  ('arg', 'said'),
  [
    ('g_bits=4,a_bits=8', "generator's activations; say g_a_bits"),
    ('d_bits=4,w_bits=8', "discriminator's weights; say d_w_bits"),
    ('quantizer=grid', 'needs bits=b'),
    ('quantizer=grid,g_bits=-6', 'needs bits=b'),
  ],
)
def test_bits_that_contradict_or_lack_are_refused(arg, said):
  with pytest.raises(UserError, match=said):
    resolved(arg)


def test_values_follow_an_override_that_comes_later():
  config = config_lib.override(config_lib.base(), 'bits=8,learning_rate=0.1')
  config.bits = 4
  config.learning_rate = 0.2
  config.optimizer = 'optax.lion'
  config.discriminator.learning_rate = 0.4
  config.loss.penalty = 'gradient_penalty'
  config.norm = 'batch'
  config = config_lib.resolve(config)
  assert bits(config) == (4, 4, 4, 4)
  assert config.generator.learning_rate == 0.2
  assert config.discriminator.learning_rate == 0.4
  assert config.generator.optimizer == 'lion'
  # b1 of the default, Adam, does not outlive it.
  assert config.generator.optimizer_kwargs.to_dict() == {}
  assert config.loss.penalty_weight == 10
  assert config.generator.norm == config.discriminator.norm == 'batch'


def test_the_first_half_is_in_float_unless_it_was_trained_before():
  start = {
    string: resolved(string).precision.start_step
    for string in ('steps=9', 'steps=9,start_step=0', 'init_from=run')
  }
  assert start == {'steps=9': 4, 'steps=9,start_step=0': 0, 'init_from=run': 0}


@pytest.mark.parametrize(
  ('string', 'every'),
  [('steps=9', 100), ('steps=2999', 100), ('steps=16999', 800),
   ('steps=16999,sample_every=7', 7)],
)  # fmt: skip
def test_twenty_grids_are_drawn_unless_told_otherwise(string, every):
  assert resolved(string).logging.sample_every == every


def test_arguments_of_optimizers():
  adam = resolved('b1=0,d_b2=0.9')
  assert adam.generator.optimizer_kwargs.to_dict() == {'b1': 0, 'b2': 0.99}
  assert adam.discriminator.optimizer_kwargs.to_dict() == {'b1': 0, 'b2': 0.9}
  # Reaches both, and SGD takes no b1: said, not dropped.
  with pytest.raises(UserError, match="generator.optimizer .*takes no 'b1'"):
    validated('g_optimizer=momentum,b1=0')


def test_a_resolved_config_is_frozen_complete_and_a_copy():
  config = config_lib.base()
  frozen = config_lib.resolve(config)
  unset = {k for k, v in config_lib.leaves(frozen).items() if v is None}
  # None is what these say: the images' own channels, TFDS's own folder…
  assert unset == {
    'data.channels',
    'data.dir',
    'data.domains',
    'data.pairs',
    'data.pixel_art',
    'init_from',
    'logging.diagnose_every',
    'precision.rules',
    'scores.inception_weights',
    'steps_per_call',
  }
  with pytest.raises(AttributeError):
    frozen.steps = 3
  config.steps = 7
  assert frozen.steps != 7
  for name in ('bits', 'learning_rate', 'channels', 'optimizer_kwargs'):
    assert name not in frozen
  assert frozen.data.source == frozen.experiment


# Validation.


@pytest.mark.parametrize(
  ('arg', 'said'),
  [
    ('bits=0', r'=0 \(set by bits or g_bits or .*1 to 16, or 32'),
    ('bits=17', '1 to 16, or 32'),
    ('w_bits=8.5', r'generator.bits.weights=8.5 \(set by bits .* g_w_bits\)'),
    ('quantizer=grid,bits=-40', 'exponent of the grid'),
    (
      'anneal_steps=5,rules=*/weights/up0: quantizer=grid bits=-6',
      'precision.anneal_steps=5 is of bit widths, and quantizer=grid',
    ),
    (
      'quantizer=ternary,bits=8',
      r'w_bits\) is .* 2 alone, or 32 for float, with ternary',
    ),
    ('quantizer=apot,w_bits=16', 'from 1 to 8, or 32 for float, with apot'),
    ('activation_quantizer=mxfp4,g_a_bits=3', 'generator.*4 alone, .*mxfp4'),
    ('gradient_quantizer=mxfp4,gradient_bits=8', '4 alone, .* with mxfp4'),
    ('quantizer=unifrom', "did you mean 'uniform'"),
    ('activation_quantizer=grid', 'one of uniform, affine'),
    ('batch_size=0', r'batch_size=0 .*from 1 to 2147483647'),
    ('diagnose_every=0', 'from 1 to 2147483647, or unset for the end alone'),
    ('d_steps=0', r'discriminator.steps=0 \(set by d_steps\)'),
    ('learning_rate=0', r'set by learning_rate or g_learning_rate.*above 0'),
    ('d_learning_rate=-1', 'discriminator.learning_rate=-1.0'),
    ('image_size=15', 'a whole number from 16 to 256'),
    ('image_size=48x15', 'or two, height x width, as 48x32'),
    ('image_size=257x32', 'from 16 to 256, or two'),
    ('image_size=48x32x3', 'from 16 to 256, or two'),
    ('image_size=48×32', 'from 16 to 256, or two'),
    ('attention=true', 'attention=true does nothing with model=dcgan'),
    ('image_channels=2', 'data.channels=2'),
    ('ema=1', 'ema.decay=1.0'),
    ('seed=-1', 'seed=-1'),
    ('loss=hing', "did you mean 'hinge'"),
    ('penalty=gp', 'one of none, r1, r1_r2, gradient_penalty'),
    ('steps_per_call=8', 'not divide logging.log_every=100.* of 100,'),
    ('penalty=none,penalty_weight=3', 'does nothing with penalty=none'),
    ('penalty=r1,batch_size=4', 'less than one image.*at least 0.25'),
    ('augment=ada,loss=wasserstein', 'with loss=wasserstein; take one of'),
    ('augment=diffaugment,variant=vae', 'does nothing with variant=vae;'),
    ('norm=bath', "did you mean 'batch'"),
    ('optimizer=adan_', "did you mean 'adan'"),
    ('optimizer=lion,momentum=0.5', "'lion' takes no 'momentum'"),
    ('b1=1', 'optimizer_kwargs.b1=1.0'),
    ('dtype=float16', 'one of float32, bfloat16'),
    ('ranges=movng', "did you mean 'moving'"),
    ('extractor=inception', 'needs scores.inception_weights'),
    ('experiment=../x', 'experiment='),
  ],
)
def test_what_is_not_allowed_is_named(arg, said):
  with pytest.raises(UserError, match=said) as caught:
    validated(arg)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('path', 'value'),
  [
    ('steps', True),
    ('seed', False),
    ('batch_size', 1.0),
    ('data.image_size', 28.0),
    ('data.conditional', 1),
    ('ema.decay', math.nan),
    ('ema.decay', False),
    ('generator.learning_rate', math.inf),
    ('discriminator.learning_rate', math.nan),
    ('generator.bits.weights', True),
    ('precision.per_channel', None),
    ('loss.name', None),
    ('data.dir', ''),
  ],
)
def test_types_are_checked_whoever_set_the_value(path, value):
  flat = config_lib.leaves(resolved()) | {path: value}
  config = config_dict.ConfigDict()
  for key, leaf in flat.items():
    group, _, name = key.rpartition('.')
    holder = config
    for part in filter(None, group.split('.')):
      if part not in holder:
        holder[part] = {}
      holder = holder[part]
    holder[name] = leaf
  with pytest.raises(UserError, match=path):
    config_lib.validate(config)


def test_all_that_is_on_offer_is_allowed():
  for name in quantizers.WEIGHTS:
    exponent = ',bits=2' if name == 'grid' else ''
    validated(f'quantizer={name}{exponent}')
  for name in ('sgd', 'momentum', 'adagrad', 'adam', 'lion', 'optax.adamw'):
    validated(f'optimizer={name}')
  validated('penalty=r1,loss=wasserstein,spectral_norm=true,dtype=bfloat16')


@pytest.mark.parametrize(
  ('said', 'expected'),
  [
    ('', ('lsq', 'lsq_plus')),
    ('activation_quantizer=pact', ('pact', 'pact')),
    ('g_activation_quantizer=affine', ('affine', 'lsq_plus')),
    ('ranges=mse', ('affine', 'affine')),
    ('ranges=mse,d_activation_quantizer=uniform', ('affine', 'uniform')),
  ],
)
def test_activations_learn_unless_something_else_is_said(said, expected):
  config = resolved(said)
  assert expected == tuple(
    config[name].activation_quantizer for name in ('generator', 'discriminator')
  )


@pytest.mark.parametrize('path', ['data.dir', 'init_from',
                                  'scores.inception_weights'])  # fmt: skip
def test_paths_may_begin_with_home(path, monkeypatch):
  monkeypatch.setenv('HOME', '/home/someone')
  config = resolved(f'{path}=~/a')
  assert config_lib.leaves(config)[path] == '/home/someone/a'


@pytest.mark.parametrize(
  ('string', 'fits'),
  [
    ('steps=2147483647', True),
    ('steps=2147483648', False),
    ('learning_rate=3.4e38', True),
    ('learning_rate=3.5e38', False),  # Above the largest float32.
    ('learning_rate=1e-44', True),
    ('learning_rate=1e-46', False),  # Nearer to 0 than to the smallest one.
    ('ema=0.99999994', True),  # 1 - 2^-24.
    ('ema=0.99999999', False),  # As float32, it is 1.
    ('weight_decay=1e400', False),
  ],
)
def test_numbers_fit_into_the_arrays_that_they_go_into(string, fits):
  optimizer = ',optimizer=adamw' if 'weight_decay' in string else ''
  try:
    validated(string + optimizer, experiment='digits')
  except UserError:
    assert not fits
  else:
    assert fits


@pytest.mark.parametrize(
  ('given', 'value'),
  [('32', 32), ('32x32', 32), ('48x32', '48x32')],
)
def test_a_square_has_one_side_as_in_earlier_records(given, value):
  """So that a run of an earlier version goes on: its record has a number."""
  config = validated(f'image_size={given}')
  assert config.data.image_size == value
  again = config_lib.from_json(config_lib.to_json(config))
  assert config_lib.diff(config, again) == []


def test_an_experiment_gives_a_number_or_a_text():
  for value, found in (64, 64), ('64x48', '64x48'):
    config = config_lib.resolve(config_lib.base(image_size=value))
    assert config.data.image_size == found
