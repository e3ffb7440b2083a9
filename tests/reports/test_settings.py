import dataclasses

from fake_runs import config_of
import pytest

from qgan_jax.reports.read import Run
from qgan_jax.reports.settings import settings_of


def runs_of(*configs):
  def flat(value, prefix=''):
    for key, inner in value.items():
      if isinstance(inner, dict):
        yield from flat(inner, f'{prefix}{key}.')
      else:
        yield f'{prefix}{key}', inner

  return [
    Run(
      folder=None, name=str(i), state='done', message='', seconds=None,
      config=dict(flat(config)), record={}, command='', scores={}, curves={},
      samples={},
    )
    for i, config in enumerate(configs)
  ]  # fmt: skip


def bits_of(g_w, g_a, d_w, d_a):
  return config_of(
    generator__bits={'weights': g_w, 'activations': g_a},
    discriminator__bits={'weights': d_w, 'activations': d_a},
  )


@pytest.mark.parametrize(
  ('bits', 'label', 'series'),
  [
    ((4, 4, 4, 4), '4 bits', 'all bits equal'),
    ((32, 32, 32, 32), 'float', 'all bits equal'),
    ((4, 8, 4, 8), 'W4A8', 'A8'),
    ((4, 32, 4, 32), 'W4Afloat', 'Afloat'),
    ((4, 4, 32, 32), 'G W4A4 D WfloatAfloat', None),
  ],
)
def test_bits_in_words(bits, label, series):
  (setting,) = settings_of(runs_of(bits_of(*bits)))
  assert setting.label == label
  assert setting.x == bits[0]
  assert setting.is_float == (min(bits) == 32)
  if series:
    assert setting.series == series


def ruled(rules, *bits, weight_bits=None, **changes):
  config = bits_of(*bits)
  config['precision'] |= {'rules': rules, **changes}
  (run,) = runs_of(config)
  return dataclasses.replace(run, weight_bits=weight_bits)


@pytest.mark.parametrize(
  ('rules', 'bits', 'text', 'is_float', 'is_quantized', 'x'),
  [
    # By hand: what of it is quantized, and whose weights have other bits.
    ('generator/*/*: bits=2', 32, 'float + rules', False, True, 3.5),
    ('decoder/weights/up: bits=2', 32, 'float + rules', False, True, 3.5),
    ('*/activations/*: bits=2', 32, 'float + rules', False, True, 32),
    ('*/gradients/*: bits=2', 32, 'float + rules', False, False, 32),
    ('discriminator/*/*: bits=4', 32, 'float + rules', False, False, 32),
    ('*/*/logit: per_channel=false', 32, 'float', True, False, 32),
    ('*/*/logit: quantizer=affine', 32, 'float + rules', True, False, 3.5),
    ('a/*/b: bits=32; gen*/w*/up: bits=2', 8, '8 bits + rules', 0, 1, 3.5),
    ('discriminator/*/logit: bits=32', 8, '8 bits + rules', False, True, 8),
    (None, 8, '8 bits', False, True, 8),
  ],
)
def test_rules_that_say_bits(rules, bits, text, is_float, is_quantized, x):
  (setting,) = settings_of([ruled(rules, *[bits] * 4, weight_bits=3.5)])
  assert (setting.label, setting.x) == (text, x)
  assert (setting.is_float, setting.is_quantized) == (is_float, is_quantized)


def test_bits_that_rules_choose_are_no_place_on_the_axis_if_unknown():
  run = ruled('generator/weights/up: bits=2', 8, 8, 8, 8)
  assert settings_of([run])[0].x is None


def test_quantized_gradients_are_not_float():
  (setting,) = settings_of([ruled(None, *[32] * 4, gradient_bits=4)])
  assert setting.label == 'float + gradients of 4 bits'
  assert not setting.is_float
  assert not setting.is_quantized


def test_methods_after_training_are_settings_of_their_own():
  runs = [
    dataclasses.replace(run, record=record)
    for run, record in zip(
      runs_of(*[bits_of(4, 4, 4, 4)] * 4),
      (
        {'file': 'mnist', 'arg': 'bits=4'},
        *(
          {'file': 'qgan_jax.quantize', 'arg': f'runs/a:b=1,c=2-s0:{how}'}
          for how in (
            'mse,lsq,w_bits=4,a_bits=4',
            'adaround,lsq,w_bits=4,a_bits=4',
            'mse,lsq,w_bits=4,a_bits=4,calibration=kl,samples=64',
          )
        ),
      ),
      strict=True,
    )
  ]
  assert [setting.label for setting in settings_of(runs)] == [
    '4 bits, method=training',
    '4 bits, method=mse',
    '4 bits, method=adaround',
    '4 bits, method=mse calibration=kl samples=64',
  ]


def test_one_series_whatever_the_bits_of_g_where_d_stays():
  for a_bits in (None, 8):
    settings = settings_of(
      runs_of(*(bits_of(n, a_bits or n, 8, 8) for n in (8, 4, 2)))
    )
    assert len({setting.series for setting in settings}) == 1, settings
    assert len({setting.label for setting in settings}) == 3


def test_eight_bits_are_of_the_series_whose_activations_have_eight():
  settings = settings_of(
    runs_of(*(bits_of(n, a, n, a) for n, a in ((2, 8), (8, 8), (32, 32))))
  )
  assert [s.label for s in settings] == ['W2A8', 'W8A8', 'float']
  assert [s.series for s in settings] == ['A8', 'A8', 'float']
  # Not where both fall together.
  settings = settings_of(runs_of(bits_of(2, 2, 2, 2), bits_of(8, 8, 8, 8)))
  assert [s.series for s in settings] == ['all bits equal'] * 2


def test_seed_and_logging_make_no_difference():
  settings = settings_of(
    runs_of(config_of(seed=0), config_of(seed=1, logging__log_every=5))
  )
  assert settings[0] == settings[1]


def test_what_differs_is_named_and_shared_once():
  rates = {'generator__learning_rate': 0.1, 'discriminator__learning_rate': 0.1}
  one, other, third = settings_of(
    runs_of(
      config_of(),
      config_of(**rates),
      config_of(precision__quantizer='lsq'),
    )
  )
  assert one.label == '4 bits, quantizer=uniform, learning_rate=0.001'
  assert other.label == '4 bits, quantizer=uniform, learning_rate=0.1'
  assert third.series == 'quantizer=lsq, learning_rate=0.001'


def test_networks_that_differ_are_told_apart():
  settings = settings_of(
    runs_of(
      config_of(generator__learning_rate=0.1),
      config_of(discriminator__learning_rate=0.1),
    )
  )
  assert len({setting.label for setting in settings}) == 2


def test_a_key_of_a_newer_version_is_no_difference():
  new = config_of(seed=1)
  new['precision']['newer'] = 3
  one, other = settings_of(runs_of(config_of(), new))
  assert one == other


def test_a_run_without_config_has_a_setting_too():
  unknown, known = settings_of(runs_of({}, config_of()))
  assert (unknown.label, unknown.x) == ('bits unknown', None)
  assert known.label == '4 bits'
