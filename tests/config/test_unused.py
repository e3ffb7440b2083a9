import pytest

from qgan_jax import config as config_lib
from qgan_jax.config import flags
from qgan_jax.config.keys import KEYS
from qgan_jax.config.unused import refuse_unused
from qgan_jax.errors import UserError


def parsed(arg, *more):
  return flags.parse_args([f'--config={arg}', *more]).config


@pytest.mark.parametrize(
  ('arg', 'says'),
  [
    ('digits:fit=pad', 'fit does nothing with source=digits, .* source=folder'),
    ('mnist:pixel_art=true', 'pixel_art does nothing with source=mnist'),
    ('digits:group=content', 'group does nothing'),
    ('digits:beta=2', 'with variant=gan, .* variant=vae or vae_gan; leave'),
    ('digits:variant=vae,loss=hinge', 'loss does nothing with variant=vae'),
    (
      'digits:variant=vae,augment=diffaugment',
      'augment does nothing with variant=vae',
    ),
    ('digits:variant=vae,d_steps=2', 'd_steps does nothing'),
    ('digits:variant=vae,noise=0.3', 'noise does .* likelihood=bernoulli'),
    ('digits:augment=diffaugment,augment_target=0.5', 'augment=diffaugment'),
    ('digits:l1_weight=1', 'it is for variant=pix2pix'),
    ('digits:model=r3gan,norm=batch', 'norm does nothing with model=r3gan'),
    ('digits:model=r3gan,spectral_norm=true', 'spectral_norm does nothing'),
    ('digits:model=resnet,d_norm=none', 'd_norm does nothing'),
    ('digits:dropout=0.2', 'dropout does nothing with model=dcgan'),
    ('heroes_pairs:dir=a,model=translator,dropout=0.2', 'dropout does nothing'),
  ],
)
def test_a_key_that_does_nothing_is_refused(arg, says):
  with pytest.raises(UserError, match=says):
    parsed(arg)


def test_a_flag_is_a_key_too():
  with pytest.raises(UserError, match=r'data\.fit does nothing'):
    parsed('digits', '--config.data.fit=pad')


@pytest.mark.parametrize(
  'arg',
  [
    'images:dir=a,fit=pad,pixel_art=true,group=name',
    'digits:variant=vae,beta=2,likelihood=gaussian,noise=0.3,d_bits=4',
    'digits:variant=vae_gan,gamma=1,loss=hinge,penalty=r1',
    'digits:augment=ada,augment_target=0.5',
    'digits:model=resnet,norm=batch,spectral_norm=true,attention=true',
    'images:dir=a,pairs=a/b,variant=pix2pix,model=unet,dropout=0,d_norm=batch',
    'heroes_pairs:dir=a,model=translator,g_norm=group,d_norm=batch',
    'heroes_cycle:dir=a,model=translator,channels=16,spectral_norm=true',
  ],
)
def test_what_does_something_is_not(arg):
  parsed(arg)


def test_defaults_are_for_all_variants():
  config = config_lib.resolve(config_lib.base(beta=3.0, fit='pad'))
  refuse_unused(config, [])
  with pytest.raises(UserError):
    refuse_unused(config, ['beta'])


def test_what_keys_are_for_is_there():
  for key in KEYS.values():
    for path, values in key.only_with.items():
      kind = KEYS[path].kind
      assert all(kind.accepts(value) for value in values)
