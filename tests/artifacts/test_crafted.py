"""`.qgan` files with right checksums that no network of ours was saved as."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_packed import make_bits, rewrite, save

from qgan_jax import artifacts
from qgan_jax.artifacts import inference, packed, variables
from qgan_jax.errors import UserError
from qgan_jax.precision import (
  inputs_like,
  Precision,
  Quantized,
  QuantizerSpec,
)

KERNEL = 'params/up0/kernel'


class Wide(nn.Module):
  """Has no parameter that shows the size of what it computes."""

  width: int = 10
  layers: int = 1

  @nn.compact
  def __call__(self, z):
    for _ in range(self.layers):
      z = nn.Dense(5)(z)
    x = jnp.broadcast_to(z[:, :, None], (*z.shape, self.width))
    return x.max(-1)[:, :, None, None]


def wide(**kwargs):
  module = Wide(**kwargs)
  z = np.ones((1, 5), np.float32)
  return Quantized(
    module,
    Precision(),
    make_bits(32, 32),
    module.init(jax.random.key(0), z),
    inputs=inputs_like(z),
  )


def crafted(tmp_path, change, **kwargs):
  path = tmp_path / 'g.qgan'
  save(path, **kwargs)
  rewrite(path, lambda header, tensors: change(header, tensors) and None)
  return path


def with_header(**values):
  return lambda header, tensors: header['model_kwargs'].update(values)


def with_tensor(name, value):
  """Every value of a tensor replaced."""

  def change(header, tensors):
    assert name in tensors
    tensors[name] = np.broadcast_to(np.float32(value), tensors[name].shape)

  return change


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (with_header(image_size=4096), 'image_size is 4096, and at most 256'),
    (with_header(channels=8192), 'channels is 8192, and at most 4096'),
    (with_header(blocks=65), 'blocks is 65, and at most 64'),
    (with_tensor('variables/params/up0/bias', np.nan), 'up0/bias .*not finite'),
    (with_tensor('ranges/up0', [np.inf, 1]), 'ranges/up0 .*not finite'),
    (with_tensor('ranges/up0', [2, 1]), 'range of up0 is from 2.0 to 1.0'),
    (with_tensor(f'quantizer/{KERNEL}/scale', np.nan), 'scale .*not finite'),
    (with_tensor(f'quantizer/{KERNEL}/scale', -1), 'scale .*is below 0'),
  ],
)
def test_values_are_checked_as_shapes_are(tmp_path, change, message):
  path = crafted(tmp_path, change)
  with pytest.raises(UserError, match=message) as caught:
    packed.load(path)
  assert str(path) in str(caught.value)


def test_a_learned_scale_below_0_stands_for_its_size(tmp_path):
  precision = Precision(QuantizerSpec('lsq_plus', -1))
  path = tmp_path / 'g.qgan'
  save(path, precision=precision, ranges={})
  expected = packed.load(path)

  def turn(header, tensors):
    name = f'quantizer/{KERNEL}/scale'
    tensors[name] = -tensors[name]

  rewrite(path, turn)
  np.testing.assert_array_equal(
    packed.load(path).variables['params']['up0']['kernel'],
    expected.variables['params']['up0']['kernel'],
  )


def test_nothing_is_decoded_before_shapes_are_compared(tmp_path, monkeypatch):
  """A file of zeros, one bit each, inflates to many times its size."""

  def larger(header, tensors):
    header['codes'][KERNEL] = [1, 0, [4, 4, 2**12, 2**8]]
    tensors[f'variables/{KERNEL}'] = np.zeros(2**21, np.uint8)

  path = crafted(tmp_path, larger)
  monkeypatch.setattr(packed, 'decode_weight', None)
  with pytest.raises(UserError, match=r'kernel has the shape \(4, 4, 4096, 25'):
    packed.load(path)


def test_small_files_hold_small_networks(tmp_path, monkeypatch):
  path = tmp_path / 'g.qgan'
  save(path)
  monkeypatch.setattr(variables, '_VALUES', 10)
  monkeypatch.setattr(variables, '_VALUES_PER_BYTE', 0)
  message = 'values, and a file of .* bytes may have 10'
  with pytest.raises(UserError, match=message):
    packed.load(path)
  with pytest.raises(UserError, match=f'cannot be written.*{message}'):
    save(tmp_path / 'x.qgan')
  assert not (tmp_path / 'x.qgan').exists()


def test_the_memory_of_drawing_is_known_and_bounded(tmp_path, monkeypatch):
  z, output = 64 * 5 * 4, 64 * 5 * 10**6 * 4
  assert inference.memory_of(wide(width=10**6)) == z + output
  path = tmp_path / 'g.qgan'
  artifacts.save(path, wide())
  artifacts.open_drawer(path)
  rewrite(
    path, lambda header, tensors: header['model_kwargs'].update(width=10**6)
  )
  artifacts.load(path)
  with pytest.raises(UserError, match='takes 1220 MiB to draw, and'):
    artifacts.open_drawer(path)


@pytest.mark.parametrize('bits', [{'x': 8}, {}, {'project': 8}])
def test_bits_of_other_layers(tmp_path, bits):
  def change(header, tensors):
    header['bits']['activations'] = bits

  path = crafted(tmp_path, change)
  with pytest.raises(UserError, match='does not fit together.*no bits for'):
    artifacts.load(path)


class Large(nn.Module):
  """Images of 256×256 pixels from maps of eight channels."""

  @nn.compact
  def __call__(self, z):
    x = nn.Dense(8)(z)[:, None, None] + jnp.zeros((256, 256, 1))
    return nn.Conv(3, (1, 1))(x)


def test_large_images_take_the_memory_of_a_few():
  z = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
  module = Large()
  variables = module.init(jax.random.key(0), z)
  network = Quantized(
    module, Precision(), make_bits(32, 32), variables, inputs=inputs_like(z)
  )
  # Four at a time: what the convolution reads and writes.
  assert inference.memory_of(network) < 5 * 256 * 256 * (8 + 3) * 4
  np.testing.assert_allclose(
    inference.images(network, z), module.apply(variables, z), atol=1e-5
  )


def test_a_module_of_too_many_layers(tmp_path, monkeypatch):
  monkeypatch.setattr(variables, '_MAX_CALLS', 20)
  path = tmp_path / 'g.qgan'
  artifacts.save(path, wide())
  rewrite(
    path, lambda header, tensors: header['model_kwargs'].update(layers=10**6)
  )
  with pytest.raises(UserError, match='more than 20 layers'):
    artifacts.load(path)
