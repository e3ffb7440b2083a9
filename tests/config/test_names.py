"""Configs as text: the names of their folders, config strings, JSON."""

from hypothesis import given, settings
from hypothesis import strategies as st
from test_config import resolved

from qgan_jax import config as config_lib
from qgan_jax import quantizers
from qgan_jax.config import grammar, keys, kinds, names

_OVERRIDES = {
  'bits': st.sampled_from([1, 4, 8, 32]),
  'g_w_bits': st.integers(1, 16),
  'a_bits': st.integers(1, 16),
  'quantizer': st.sampled_from(quantizers.WEIGHTS),
  'loss': st.sampled_from(['hinge', 'wasserstein']),
  'penalty': st.sampled_from(['none', 'r1', 'gradient_penalty']),
  'penalty_weight': st.floats(0, 100),
  'optimizer': st.sampled_from(['adam', 'lion', 'sgd', 'optax.adamw']),
  'd_optimizer': st.sampled_from(['adam', 'momentum']),
  'learning_rate': st.floats(1e-6, 1),
  'd_learning_rate': st.floats(1e-6, 1),
  'norm': st.sampled_from(['group', 'batch', 'none']),
  'g_norm': st.sampled_from(['group', 'batch', 'none']),
  'channels': st.integers(1, 64),
  'd_b1': st.floats(0, 0.5),
  'conditional': st.booleans(),
  'image_channels': st.sampled_from([1, 3]),
  'steps': st.integers(1, 10**6),
  'seed': st.integers(0, 2**32 - 1),
  'source': st.sampled_from(['mnist', 'digits', 'folder:/a/b', 'folder:/a_b']),
  'precision.momentum': st.floats(0, 0.9),
}
_CONFIGS = st.fixed_dictionaries({}, optional=_OVERRIDES).map(
  # A grid has no default for the weights' bits.
  lambda overrides: resolved(**{'bits': 8, 'experiment': 'mnist'} | overrides)
)


@settings(max_examples=30, deadline=None)
@given(_CONFIGS)
def test_the_config_string_gives_the_config_back(config):
  string = names.config_string_of(config)
  again = resolved(string, experiment='mnist', seed=config.seed)
  assert config_lib.diff(config, again) == []


@settings(max_examples=30, deadline=None)
@given(_CONFIGS)
def test_json_loses_nothing(config):
  again = config_lib.from_json(config_lib.to_json(config))
  assert again == config
  assert config_lib.diff(config, again) == []


@settings(max_examples=30, deadline=None)
@given(_CONFIGS, _CONFIGS)
def test_other_configs_have_other_folders(one, other):
  folders = [names.default_workdir(config) for config in (one, other)]
  assert (folders[0] == folders[1]) == (config_lib.diff(one, other) == [])
  for folder in folders:
    runs, experiment, name = folder.split('/')
    assert (runs, experiment) == ('runs', 'mnist')
    assert len(name) < 255


def test_a_folder_does_not_name_what_follows():
  config = resolved('bits=8,steps=1000')
  assert names.config_string_of(config) == 'bits=8,steps=1000'


def test_settings_have_an_order_by_which_earlier_runs_are_found_again():
  string = (
    'w_bits=2,a_bits=4,steps=9,source=digits,dir=x,image_size=32,quantizer=apot,'
    'ranges=mse,gradient_bits=8,start_step=3,anneal_steps=2,prune_steps=1,'
    'loss=hinge,penalty=none,penalty_fraction=0.5,spectral_norm=True,'
    'latent_dim=16,channels=64,optimizer=sgd,sparsity=0.5,g_norm=batch,'
    'g_learning_rate=0.1,d_norm=group,d_learning_rate=0.2,d_steps=2,ema=0.9,'
    'learning_rate_decay=linear,batch_size=8,dtype=bfloat16,log_every=1,'
    'diagnose=False,extractor=inception,logging.eval_samples=5,'
    'precision.input_bits=4,precision.momentum=0.5'
  )
  shuffled = ','.join(sorted(string.split(',')))
  assert names.config_string_of(resolved(shuffled)) == string


def test_folders_as_a_person_would_name_them():
  def folder(arg):
    config = resolved(arg, experiment='mnist')
    return names.default_workdir(config)

  assert folder('bits=8,seed=1') == folder('seed=1') == 'runs/mnist/bits=8-s1'
  assert folder('loss=hinge,bits=4') == 'runs/mnist/bits=4,loss=hinge-s0'
  assert folder('d_bits=4') == 'runs/mnist/g_bits=8,d_bits=4-s0'
  assert folder('w_bits=4') == 'runs/mnist/w_bits=4,a_bits=8-s0'
  assert folder('g_learning_rate=0.1,d_learning_rate=0.1') == (
    'runs/mnist/bits=8,learning_rate=0.1-s0'
  )
  # One value with a comma, from a flag, and two settings: not the same.
  config = config_lib.base(experiment='mnist')
  config.data.dir = 'a,steps=5'
  config = config_lib.resolve(config)
  assert names.default_workdir(config) != folder('dir=a,steps=5')
  assert folder('dir=/a/b') != folder('dir=/a_b')


def test_what_is_given_away_names_no_path():
  paths = [key.path for key in keys.KEYS.values() if key.kind is kinds.PATH]
  assert {'data.dir', 'init_from'} <= set(paths)
  given = {path: f'/home/me/{path.replace(".", "-")}/' for path in paths}
  config = resolved(bits=4, source='folder', **given)
  assert names.config_string_of(config).count('/home/me/') == len(paths) + 1
  string = names.public_string_of(config)
  assert '/' not in string
  parsed = grammar.parse(string)
  found = {keys.SHORT_NAMES.get(name, name): v for name, v in parsed.items()}
  for path in paths:
    assert found[path] == path.replace('.', '-')
  assert found['data.source'] == 'folder:data-dir'
  # Nothing else changes.
  plain = resolved('bits=4,steps=9,source=digits,g_norm=batch')
  assert names.public_string_of(plain) == names.config_string_of(plain)
