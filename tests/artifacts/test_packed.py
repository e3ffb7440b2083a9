import json
import math
import os
import resource

from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import qgan_jax
from qgan_jax import artifacts, models, quantizers
from qgan_jax.artifacts import (
  architecture,
  container,
  drawer,
  inference,
  packed,
)
from qgan_jax.errors import UserError
from qgan_jax.precision import Bits, Precision, Quantized, QuantizerSpec

SMALL = {'image_size': 8, 'channels': 8, 'latent_dim': 5}
MOVING = Precision(QuantizerSpec('uniform', -1), QuantizerSpec('affine'))
METADATA = {'dataset': 'mnist', 'config': 'bits=4', 'step': 100, 'seed': 0}


def make_bits(weights, activations=8):
  return Bits(jnp.float32(weights), jnp.float32(activations))


def make_variables(seed=0, **kwargs):
  """Random variables of a generator, without the time its init takes."""
  module = models.make_generator('dcgan', **kwargs)
  labels = jnp.zeros(1, jnp.int32) if module.num_classes else None
  shapes = jax.eval_shape(
    lambda: module.init(
      jax.random.key(0), jnp.zeros((1, module.latent_dim)), labels
    )
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    # Positive shifts: they may be BatchNorm's variances.
    lambda x: np.float32(0.3 * rng.standard_normal(x.shape) + (x.ndim < 2)),
    shapes,
  )


def save(path, *, precision=MOVING, bits=None, ranges=None, **kwargs):
  kwargs = SMALL | kwargs
  variables = make_variables(**kwargs)
  if ranges is None:
    ranges = {'project': np.float32([-2, 2]), 'up0': np.float32([0, 3])}
  network = Quantized(
    models.make_generator('dcgan', **kwargs),
    precision,
    make_bits(4) if bits is None else bits,
    variables,
    ranges,
  )
  sizes = packed.save(path, network, metadata=METADATA)
  return variables, sizes


def assert_trees_equal(a, b):
  a, b = (traverse_util.flatten_dict(x, sep='/') for x in (a, b))
  assert a.keys() == b.keys()
  for name, x in a.items():
    assert b[name].dtype == np.float32
    np.testing.assert_array_equal(b[name], x, err_msg=name)


# Of one that shares its rounding with another, one is enough.
PACKED = ('uniform', 'affine', 'power_of_two_scale', 'grid', 'lsq_plus')
PACKED += ('dorefa', 'ternary', 'logarithmic', 'apot', 'codebook', 'mxfp4')


@pytest.mark.parametrize('axis', [None, -1])
@pytest.mark.parametrize('name', PACKED)
def test_decoded_weights_are_the_trained_ones(tmp_path, name, axis):
  precision = Precision(QuantizerSpec(name, axis), None)
  # As the training step computes them: compiled, with the bits traced.
  quantize = jax.jit(precision.quantize_weights)
  exponents = (8, 0.5, -6, -9.5, -20, -32, 32)
  for bits in exponents if name == 'grid' else (1, 2, 3, 4, 8, 16, 32):
    variables, _ = save(
      tmp_path / 'g.qgan', precision=precision, bits=make_bits(bits)
    )
    loaded = packed.load(tmp_path / 'g.qgan')
    trained = quantize(variables['params'], make_bits(bits))
    assert_trees_equal({'params': trained}, loaded.variables)
    levels = 2 ** (quantizers.by_name(name).fixed_bits or 4)
    if (
      bits == 4 and name != 'mxfp4'
    ):  # The test compares something that was rounded.
      kernel = loaded.variables['params']['project']['kernel']
      assert len(np.unique(kernel[..., 0])) <= levels


def test_everything_else_comes_back(tmp_path):
  variables, _ = save(tmp_path / 'g.qgan', norm='batch', num_classes=3)
  loaded = packed.load(tmp_path / 'g.qgan')
  assert loaded.module == models.make_generator(
    'dcgan', **SMALL, norm='batch', num_classes=3
  )
  assert loaded.precision == MOVING
  assert loaded.bits == Bits(4.0, 8.0)
  assert packed.read(tmp_path / 'g.qgan').metadata == METADATA
  assert loaded.ranges.keys() == {'project', 'up0'}
  np.testing.assert_array_equal(loaded.ranges['up0'], [0, 3])
  assert_trees_equal(
    {'batch_stats': variables['batch_stats']},
    {'batch_stats': loaded.variables['batch_stats']},
  )
  np.testing.assert_array_equal(
    loaded.variables['params']['up0']['bias'],
    variables['params']['up0']['bias'],
  )


def test_float_generator_keeps_every_value(tmp_path):
  variables, sizes = save(tmp_path / 'g.qgan', precision=Precision(), ranges={})
  loaded = packed.load(tmp_path / 'g.qgan')
  assert_trees_equal(variables, loaded.variables)
  assert loaded.precision == Precision()
  assert sizes.ratio < 1


@pytest.mark.parametrize(('bits', 'ratio'), [(8, 3.9), (4, 7.5), (2, 14)])
def test_size(tmp_path, bits, ratio):
  path = tmp_path / 'g.qgan'
  variables = make_variables()
  count = sum(x.size for x in jax.tree.leaves(variables))
  assert 280_000 < count < 320_000
  network = Quantized(
    models.make_generator('dcgan'),
    MOVING,
    make_bits(bits),
    variables,
    {f'up{i}': np.zeros(2) for i in range(3)} | {'project': np.ones(2)},
  )
  sizes = packed.save(path, network, metadata=METADATA)
  assert sizes == (4 * count, path.stat().st_size)
  assert sizes.ratio == 4 * count / path.stat().st_size
  assert sizes.ratio >= ratio


@pytest.mark.parametrize('momentum', [0.99, 0.0])
@pytest.mark.parametrize('num', [3, 100])
def test_images_are_those_of_the_quantized_network(tmp_path, momentum, num):
  precision = Precision(
    QuantizerSpec('uniform', -1), QuantizerSpec('affine'), momentum
  )
  # Weights and activations coarse enough to see either of them missing.
  bits = make_bits(3, 3)
  variables, _ = save(
    tmp_path / 'g.qgan', precision=precision, bits=bits, num_classes=3
  )
  loaded = packed.load(tmp_path / 'g.qgan')
  rng = np.random.default_rng(0)
  latents = rng.standard_normal((num, 5), np.float32)
  labels = rng.integers(0, 3, num)
  images = artifacts.images(loaded, latents, labels)
  assert images.shape == (num, 8, 8, 1)

  @jax.jit
  def draw(latents, labels):
    weights = precision.quantize_weights(variables['params'], bits)
    images, _ = precision.apply(
      models.make_generator('dcgan', **SMALL, num_classes=3),
      {'params': weights},
      loaded.ranges,
      bits,
      latents,
      labels,
    )
    return images

  expected = np.concatenate(
    [
      draw(latents[i : i + drawer.BATCH], labels[i : i + drawer.BATCH])
      for i in range(0, num, drawer.BATCH)
    ]
  )
  np.testing.assert_allclose(images, expected, atol=1e-5)
  module = models.make_generator('dcgan', **SMALL, num_classes=3)
  unquantized = jax.jit(module.apply)(variables, latents, labels)
  assert np.abs(images - unquantized).max() > 0.01


def test_images_compile_once_for_every_number_of_latents(tmp_path, monkeypatch):
  save(tmp_path / 'g.qgan')
  loaded = packed.load(tmp_path / 'g.qgan')
  traced = []

  def run(network, *inputs):
    traced.append(len(inputs[0]))
    return network(*inputs)

  monkeypatch.setattr(inference, 'run', jax.jit(run))
  many = np.random.default_rng(0).normal(size=(130, 5))
  drawn = artifacts.images(loaded, many[:2])
  np.testing.assert_array_equal(artifacts.images(loaded, many)[:2], drawn)
  assert traced == [drawer.BATCH]
  # But for one alone.
  one = artifacts.images(loaded, many[:1])
  np.testing.assert_allclose(one, drawn[:1], atol=1e-5)
  assert traced == [drawer.BATCH, 1]


@pytest.mark.parametrize(
  ('classes', 'latents', 'labels'),
  [
    (0, (2, 4), None),
    (0, (5,), None),
    (0, (0, 5), None),
    (0, (2, 5), [0, 1]),
    (3, (2, 5), None),
    (3, (2, 5), [0]),
    (3, (2, 5), [0, 3]),
    (3, (2, 5), [-1, 0]),
  ],
)
def test_images_refuse_other_inputs(tmp_path, classes, latents, labels):
  save(tmp_path / 'g.qgan', num_classes=classes)
  loaded = packed.load(tmp_path / 'g.qgan')
  with pytest.raises(ValueError, match='inputs of shape|labels'):
    artifacts.images(loaded, np.zeros(latents), labels)


def test_the_same_generator_makes_the_same_bytes(tmp_path):
  contents = set()
  for i in range(3):
    save(tmp_path / f'{i}.qgan')
    contents.add((tmp_path / f'{i}.qgan').read_bytes())
  assert len(contents) == 1


def test_diverged_generator_is_refused(tmp_path):
  path = tmp_path / 'g.qgan'
  with pytest.raises(UserError, match='ranges/up0 .* not finite'):
    save(path, ranges={'up0': np.float32([0, np.nan])})
  assert not list(tmp_path.iterdir())


def test_variables_of_another_model_are_refused(tmp_path):
  with pytest.raises(ValueError, match='params/'):
    wider = models.make_generator('dcgan', **SMALL | {'channels': 16})
    variables = make_variables(**SMALL)
    packed.save(
      tmp_path / 'g.qgan', Quantized(wider, MOVING, make_bits(4), variables)
    )


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'g.qgan'
  save(path)
  old = path.read_bytes()

  def full(fd):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(UserError, match='No space left'):
    save(path, bits=make_bits(8))
  assert path.read_bytes() == old
  assert list(tmp_path.iterdir()) == [path]


def read(path):
  """(header, tensors) of a file."""
  return container.split(safetensors.numpy.load_file(path)['qgan'])


def rewrite(path, change, version='4'):
  """Changes a file's header and tensors, and puts a right checksum on it."""
  header, tensors = read(path)
  header = change(header, tensors) or header
  content = {'qgan': container.join(header, tensors)}
  safetensors.numpy.save_file(content, path, {'qgan': version})


def test_another_version_is_named(tmp_path):
  path = tmp_path / 'g.qgan'
  save(path)
  rewrite(path, lambda header, tensors: None, version='7')
  with pytest.raises(UserError, match='version 7.*reads versions 1 to 4'):
    packed.load(path)


class Residual(nn.Module):
  """A shortcut that reads the latents as the first layer does."""

  @nn.compact
  def __call__(self, z):
    h = nn.Dense(8, name='first')(z)
    h = nn.Dense(8, name='second')(nn.relu(h))
    return h + nn.Dense(8, name='short')(z)


def test_a_file_says_which_layers_read_the_input(tmp_path):
  """And one of version 3, which does not, draws as it did when it was made."""
  path = tmp_path / 'g.qgan'
  z = jax.random.normal(jax.random.key(0), (16, 4))
  module = Residual()
  variables = module.init(jax.random.key(1), z)
  network = qgan_jax.quantize((module, variables), bit_width=2, calibrate=z)
  packed.save(path, network)
  loaded = packed.load(path)
  assert set(loaded.precision.input_layers) == {'first', 'short'}
  np.testing.assert_array_equal(loaded(z), network(z))

  def bits_of(network):
    seen = {}
    network.run(
      network.variables['params'], z,
      observe=lambda path, x, params, n: seen.setdefault(path, int(n)),
    )  # fmt: skip
    return seen

  assert bits_of(loaded) == {'first': 8, 'second': 2, 'short': 8}

  def earlier(header, tensors):
    del header['precision']['input_layers']

  rewrite(path, earlier, version='3')
  old = packed.load(path)
  assert bits_of(old) == {'first': 8, 'second': 2, 'short': 2}
  again = tmp_path / 'again.qgan'
  packed.save(again, old)
  assert bits_of(packed.load(again)) == bits_of(old)


@pytest.mark.parametrize('version', [1, 2])
def test_files_of_old_versions_are_read(tmp_path, version):
  path = tmp_path / 'g.qgan'
  save(path)
  expected = packed.load(path)
  header, tensors = read(path)
  header['version'] = version
  del header['inputs'], header['precision']['input_layers']
  for digest, error in ((packed._checksum(header, tensors), None),
                        ('0' * 64, 'checksum')):  # fmt: skip
    text = json.dumps({**header, 'sha256': digest})
    safetensors.numpy.save_file(tensors, path, {'qgan': text})
    if error:
      with pytest.raises(UserError, match=error):
        packed.load(path)
    else:
      loaded = packed.load(path)
      assert_trees_equal(loaded.variables, expected.variables)
      assert_trees_equal(loaded.ranges, expected.ranges)


def test_every_changed_bit_is_found(tmp_path):
  path = tmp_path / 'g.qgan'
  save(path)
  data = path.read_bytes()
  start = 8 + int.from_bytes(data[:8], 'little')
  for position in np.random.default_rng(0).integers(start, len(data), 200):
    changed = bytearray(data)
    changed[position] ^= 1
    path.write_bytes(changed)
    with pytest.raises(UserError, match='checksum'):
      packed.load(path)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (None, 'cannot read .*No such file'),
    (b'', 'not a whole .qgan file'),
    (b'\x89PNG\r\n' + bytes(100), 'not a whole .qgan file'),
    (b'\xff' * 64, 'not a whole .qgan file'),
    (safetensors.numpy.save({'x': np.zeros(3)}), 'without a generator'),
  ],
)
def test_other_files_are_user_errors(tmp_path, content, message):
  path = tmp_path / 'g.qgan'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=message):
    packed.load(path)


def test_a_folder_is_a_user_error(tmp_path):
  with pytest.raises(UserError, match='cannot read'):
    packed.load(tmp_path)


def test_damaged_files_are_user_errors_or_unchanged(tmp_path):
  """10,000 of them, with no more memory than the file is worth."""
  path = tmp_path / 'g.qgan'
  save(path)
  data = path.read_bytes()
  original = packed.load(path)
  header_size = int.from_bytes(data[:8], 'little')
  rng = np.random.default_rng(0)
  refused = 0
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for i in range(10_000):
    damaged = bytearray(data)
    if i % 4 == 0:
      del damaged[rng.integers(len(data)) :]
    elif i % 4 == 1:  # One byte anywhere.
      damaged[rng.integers(len(data))] ^= 1 + rng.integers(255)
    elif i % 4 == 2:  # A character of the header, most of which is layout.
      damaged[8 + rng.integers(header_size)] = rng.choice(list(b'0179"]},{-e '))
    else:  # A piece moved.
      a, b, n = rng.integers((len(data), len(data), 64)) + (0, 0, 1)
      damaged[a : a + n] = data[b : b + n]
    path.write_bytes(damaged)
    try:
      loaded = packed.load(path)
    except UserError as error:
      refused += 1
      assert str(path) in str(error)
    else:
      # A space in the layout, a piece moved on itself.
      assert_trees_equal(original.variables, loaded.variables)
      assert_trees_equal(original.ranges, loaded.ranges)
      assert original.precision == loaded.precision
      assert original.bits == loaded.bits
      assert original.module == loaded.module
  assert refused > 9_000
  # In kilobytes on Linux.
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_overhead_of_a_file(tmp_path, bits):
  """2 % over codes at their bits and everything else at 32, at the most."""
  network = {'image_size': 28, 'channels': 32, 'latent_dim': 64}
  variables, sizes = save(
    tmp_path / 'g.qgan', bits=make_bits(bits), **network,
    ranges={name: np.float32([0, 1]) for name in ('project', 'up0', 'up1')},
  )  # fmt: skip
  _, tensors = read(tmp_path / 'g.qgan')
  weights = [x for x in jax.tree.leaves(variables) if x.ndim > 1]
  codes = sum(x.size for x in weights)
  assert codes > 100_000
  rest = sum(x.nbytes for x in tensors.values() if x.dtype == np.float32)
  ideal = codes * bits / 8 + rest
  assert sizes.artifact_bytes < 1.02 * ideal
  if bits > 1:
    # Levels that are not used alike take fewer bits still.
    assert sizes.artifact_bytes < 0.95 * ideal


WRONG = [
  None, True, -1, 0, 2, 10**30, 1.5, math.nan, math.inf, '', 'x', 'dcgan', [],
  [1], [[]], [3, 0, [4, 4]], [3, -1, [2**40, 2**40]], {}, {'name': 'uniform'},
  {'parent': 'x', 'name': 3}, {'channels': 10**30},
]  # fmt: skip


def places(value, path=()):
  """The path of every value inside a JSON value."""
  yield path
  items = ()
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, list):
    items = enumerate(value)
  for key, inner in items:
    yield from places(inner, (*path, key))


def test_crafted_headers_are_user_errors(tmp_path):
  """What a checksum does not stop: each field replaced, or left out."""
  path = tmp_path / 'g.qgan'
  save(path, num_classes=2)
  data = path.read_bytes()
  header, _ = read(path)
  del header['metadata']
  refused = 0
  rng = np.random.default_rng(0)
  all_places = [place for place in places(header) if place]
  for place in all_places:
    wrong = [*WRONG, 'LEAVE OUT'][rng.integers(len(WRONG) + 1)]

    def change(header, tensors, place=place, wrong=wrong):
      *outer, last = place
      inside = header
      for key in outer:
        inside = inside[key]
      if wrong == 'LEAVE OUT':
        del inside[last]
      else:
        inside[last] = wrong

    path.write_bytes(data)
    rewrite(path, change)
    try:
      artifacts.images(packed.load(path), np.ones((2, 5)), [0, 1])
    except UserError:
      refused += 1
  assert refused > 0.7 * len(all_places)


@pytest.mark.parametrize(
  'change',
  [
    lambda header, tensors: tensors.pop('variables/params/up0/bias'),
    lambda header, tensors: tensors.pop('quantizer/params/up0/kernel/scale'),
    lambda header, tensors: tensors.update({'variables/params': np.ones(2)}),
    lambda header, tensors: tensors.update({'ranges/up0': np.ones(3)}),
    lambda header, tensors: tensors.update(
      {'variables/params/up0/bias': np.ones(1, np.uint8)}
    ),
    lambda header, tensors: tensors.update(
      {'variables/params/up0/bias': np.ones(1, np.float64)}
    ),
    lambda header, tensors: tensors.update(
      {'quantizer/params/up0/kernel/scale': np.ones(7, np.float32)}
    ),
  ],
)
def test_crafted_tensors_are_user_errors(tmp_path, change):
  path = tmp_path / 'g.qgan'
  save(path)

  def both(header, tensors):
    change(header, tensors)

  rewrite(path, both)
  with pytest.raises(UserError, match='does not fit together|not a whole'):
    packed.load(path)


def test_learned_parameters_are_stored_and_used(tmp_path):
  path, rng = tmp_path / 'g.qgan', np.random.default_rng(1)
  variables, bits = make_variables(**SMALL), make_bits(3, 4)
  precision = Precision(QuantizerSpec('lsq', -1), QuantizerSpec('pact'))
  module = models.make_generator('dcgan', **SMALL)
  latents = jnp.float32(rng.standard_normal((16, 5)))
  # Training has moved them away from what fits.
  _, learned = jax.jit(
    lambda v: precision.init(module, v, bits, latents)
  )(variables)  # fmt: skip
  for layers in learned.values():
    for params in layers.values():
      name = 'scale' if 'scale' in params else 'alpha'
      params[name] = 0.7 * params[name]
  packed.save(path, Quantized(module, precision, bits, variables, {}, learned))
  loaded = packed.load(path)

  @jax.jit
  def trained(variables, learned):
    weights = precision.quantize_weights(
      variables['params'], bits, learned=learned
    )
    variables = variables | {'params': weights}
    images, _ = precision.apply(
      module, variables, {}, bits, latents, learned=learned
    )
    return weights, images

  weights, images = trained(variables, learned)
  assert_trees_equal({'params': weights}, loaded.variables)
  np.testing.assert_allclose(
    artifacts.images(loaded, latents), images, atol=1e-6
  )
  fitted, _ = trained(variables, {})
  assert np.any(fitted['up0']['kernel'] != weights['up0']['kernel'])
  assert loaded.learned['activations'].keys() == {'project', 'up0'}
  rewrite(
    path, lambda header, tensors: tensors.pop('learned/up0/alpha') and None
  )
  with pytest.raises(UserError, match='does not fit together'):
    packed.load(path)


def test_every_layer_has_its_own_bits(tmp_path):
  path = tmp_path / 'g.qgan'
  precision = Precision(
    QuantizerSpec('uniform', -1),
    QuantizerSpec('affine'),
    exceptions=(
      ('weights', 'up0', None),
      ('activations', 'up0', QuantizerSpec('affine', None, 'dynamic')),
    ),
  )
  bits = Bits(
    {'project': jnp.float32(2), 'up0': jnp.float32(32)},
    {'project': jnp.float32(8), 'up0': jnp.float32(4)},
    gradients=jnp.float32(8),
  )
  variables, _ = save(path, precision=precision, bits=bits)
  loaded = packed.load(path)
  assert loaded.precision == precision
  assert loaded.bits == bits._replace(gradients=None)
  trained = jax.jit(precision.quantize_weights)(variables['params'], bits)
  assert_trees_equal({'params': trained}, loaded.variables)
  assert len(np.unique(trained['project']['kernel'][..., 0])) <= 3
  np.testing.assert_array_equal(
    trained['up0']['kernel'], variables['params']['up0']['kernel']
  )


@pytest.mark.parametrize('name', ['uniform', 'affine', 'xnor', 'seq', 'float'])
def test_pruned_weights_are_zeros_and_take_a_bit(tmp_path, name):
  sizes = {}
  for sparsity in (None, 0.9):
    precision = Precision(None if name == 'float' else QuantizerSpec(name, -1))
    n = 32 if name == 'float' else 8
    bits = make_bits(n)._replace(
      sparsity=None if sparsity is None else jnp.float32(sparsity)
    )
    variables, found = save(
      tmp_path / 'g.qgan',
      precision=precision,
      bits=bits,
      ranges={},
      channels=64,
      latent_dim=64,
    )
    loaded = packed.load(tmp_path / 'g.qgan')
    trained = jax.jit(precision.quantize_weights)(variables['params'], bits)
    assert_trees_equal({'params': trained}, loaded.variables)
    sizes[sparsity] = found.artifact_bytes
  params = loaded.variables['params']
  kernels = [params[layer]['kernel'] for layer in ('project', 'up0')]
  count = sum(kernel.size for kernel in kernels)
  zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
  assert zeros >= round(0.9 * count) - 2
  if name != 'xnor':  # One bit a weight is no more than the bitmap.
    width = 4 if name == 'float' else 1  # Bytes of what is left.
    assert sizes[0.9] <= count / 8 + 0.1 * count * width + 3000
    assert sizes[0.9] < 0.3 * sizes[None]


def test_files_of_version_1_are_read(tmp_path):
  path = tmp_path / 'g.qgan'
  variables, _ = save(path)
  new = packed.load(path)

  def as_it_was(header, tensors):
    header['version'] = 1
    del header['inputs']
    for name in ('gradients', 'exceptions'):
      del header['precision'][name]
    for spec in ('weights', 'activations'):
      del header['precision'][spec]['ranges']

  rewrite(path, as_it_was)
  old = packed.load(path)
  assert_trees_equal(old.variables, new.variables)
  assert old.precision == new.precision
  assert old.bits == new.bits
  assert old.inputs == new.inputs


def test_a_file_of_images_that_are_not_square_comes_back(tmp_path):
  kwargs = {'image_size': (20, 12), 'channels': 8, 'latent_dim': 4}
  module = models.make_generator('dcgan', **kwargs)
  record = architecture.record_of(module)
  # As JSON has it, which knows no tuples.
  record = json.loads(json.dumps(record))
  assert record['model_kwargs']['image_size'] == [20, 12]
  assert architecture.module_of(record, tmp_path) == module
  record['model_kwargs']['image_size'] = [20, 257]
  with pytest.raises(ValueError, match='at most 256'):
    architecture.module_of(record, tmp_path)


def test_a_family_above_its_limits_has_to_be_given():
  module = models.make_generator('dcgan', image_size=512, channels=1)
  assert architecture.record_of(module) == {
    'model': 'dcgan', 'model_kwargs': None
  }  # fmt: skip
