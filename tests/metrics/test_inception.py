"""The Inception port and the reader of its weights."""

import os
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from qgan_jax.errors import UserError
from qgan_jax.metrics import (
  inception,
  inception_extractor,
  score_features,
  torch_file,
)
from qgan_jax.metrics.extractors import Features


def _random_state_dict():
  """Random weights under PyTorch's names, of the shapes that Flax gives."""
  image = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.uint8)
  shapes = jax.eval_shape(inception.Inception().init, jax.random.key(0), image)
  rng, state = np.random.default_rng(0), {}
  for path, like in jax.tree_util.tree_leaves_with_path(shapes['params']):
    *layer, kind = (key.key for key in path)
    prefix = '.'.join(layer)
    if kind == 'bias':
      continue
    shape = like.shape
    if prefix == 'fc':
      state['fc.weight'] = rng.normal(size=shape[::-1]) / shape[0] ** 0.5
      state['fc.bias'] = rng.normal(size=shape[1])
      continue
    # He's gain keeps 50 layers of random weights from fading.
    kernel = rng.normal(size=(shape[3], shape[2], *shape[:2]))
    state[f'{prefix}.conv.weight'] = kernel * (2 / kernel[0].size) ** 0.5
    width = shape[3]
    state[f'{prefix}.bn.weight'] = rng.uniform(0.8, 1.2, width)
    state[f'{prefix}.bn.bias'] = rng.normal(size=width) * 0.1
    state[f'{prefix}.bn.running_mean'] = rng.normal(size=width) * 0.1
    state[f'{prefix}.bn.running_var'] = rng.uniform(0.8, 1.2, width)
  return {k: np.asarray(v, np.float32) for k, v in state.items()}


def test_resize_is_tensorflow_1():
  # By hand: source position = output index × 28 / 299, the edge repeated.
  image = np.random.default_rng(0).uniform(size=(1, 28, 28, 1))
  resized = inception.resize_like_tensorflow1(jnp.float32(image))[0, :, :, 0]
  image = image[0, :, :, 0]
  for y, x in [(0, 0), (1, 5), (150, 33), (298, 298), (298, 7)]:
    sy, sx = y * 28 / 299, x * 28 / 299
    y0, x0 = int(sy), int(sx)
    y1, x1, dy, dx = min(y0 + 1, 27), min(x0 + 1, 27), sy - y0, sx - x0
    top = image[y0, x0] * (1 - dx) + image[y0, x1] * dx
    bottom = image[y1, x0] * (1 - dx) + image[y1, x1] * dx
    expected = top * (1 - dy) + bottom * dy
    np.testing.assert_allclose(resized[y, x], expected, atol=1e-5)


def test_safetensors_file_gives_features_and_the_name_fid(tmp_path):
  path = tmp_path / 'inception.safetensors'
  safetensors.save_file(_random_state_dict(), path)
  extractor = inception_extractor(path)
  images = np.random.default_rng(0).integers(
    256, size=(2, 28, 28, 1), dtype=np.uint8
  )
  grey = extractor.extract(images)
  assert grey.features.shape == (2, 2048)
  assert grey.probabilities.shape == (2, 1008)
  features = Features(np.eye(12, dtype=np.float32), None)
  scores = score_features(extractor, features, features)
  assert 'fid' in scores
  assert 'frechet_distance' not in scores


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('absent.pth', None, 'no file'),
    ('absent.safetensors', None, 'cannot be read'),
    ('text.pth', b'<html>404</html>', 'not a readable'),
    ('empty.pth', b'', 'not a readable'),
    ('text.safetensors', b'<html>404</html>', 'cannot be read'),
    ('other.safetensors', safetensors.save({'a': np.ones(2)}), 'missing'),
  ],
)
def test_person_errors(name, content, message, tmp_path):
  if content is not None:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=message):
    inception_extractor(tmp_path / name)


class _Hostile:
  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return os.mkdir, (self.path,)


@pytest.mark.parametrize('zipped', [True, False])
def test_hostile_pickle_is_refused_and_not_run(zipped, tmp_path):
  path, trace = tmp_path / 'weights.pth', tmp_path / 'trace'
  data = pickle.dumps({'fc.weight': _Hostile(trace)})
  if zipped:
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('archive/data.pkl', data)
  else:
    magic = pickle.dumps(torch_file._LEGACY_MAGIC)
    path.write_bytes(magic + pickle.dumps(1001) + pickle.dumps({}) + data)
  with pytest.raises(UserError, match='mkdir'):
    inception_extractor(path)
  assert not trace.exists()
  if zipped:  # the file would have worked
    pickle.loads(data)
    assert trace.exists()


@pytest.mark.peers
@pytest.mark.parametrize('new', [True, False], ids=['zip', 'legacy'])
def test_reads_what_torch_saves(new, tmp_path):
  torch = pytest.importorskip('torch')
  module = torch.nn.Sequential(
    torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5)
  )
  state = module.state_dict()
  whole = torch.arange(12.0)
  state['view'] = whole[4:10].view(2, 3)
  path = tmp_path / 'x.pth'
  torch.save(state, path, _use_new_zipfile_serialization=new)
  arrays = torch_file.read_state_dict(path)
  assert list(arrays) == list(state)
  for name, array in arrays.items():
    np.testing.assert_array_equal(array, state[name].numpy(), strict=True)
  state['view'] = whole.view(3, 4).T
  torch.save(state, path, _use_new_zipfile_serialization=new)
  with pytest.raises(UserError, match='contiguous'):
    torch_file.read_state_dict(path)


@pytest.mark.peers
@pytest.mark.parametrize('shape', [(32, 32, 3), (28, 28, 1)])
def test_equals_torch_fidelity_with_random_weights(
  shape, tmp_path, torch_fidelity
):
  torch = pytest.importorskip('torch')
  peer = torch_fidelity('feature_extractor_inceptionv3')
  state = {k: torch.from_numpy(v) for k, v in _random_state_dict().items()}
  path = tmp_path / 'weights.pth'
  for name in [k for k in state if k.endswith('running_var')]:
    counter = name.replace('running_var', 'num_batches_tracked')
    state[counter] = torch.tensor(0)
  torch.save(state, path, _use_new_zipfile_serialization=False)
  network = peer.FeatureExtractorInceptionV3(
    'x', ['2048', 'logits_unbiased'], feature_extractor_weights_path=str(path)
  )
  images = np.random.default_rng(1).integers(
    256, size=(3, *shape), dtype=np.uint8
  )
  three = np.broadcast_to(images, (*images.shape[:3], 3)).copy()
  features, logits = network(torch.from_numpy(three).permute(0, 3, 1, 2))
  ours = inception_extractor(path).extract(images)
  spread = features.std().item()
  assert spread > 1e-2
  np.testing.assert_allclose(
    ours.features, features, rtol=1e-4, atol=1e-4 * spread
  )
  np.testing.assert_allclose(
    ours.probabilities, logits.softmax(1), rtol=1e-3, atol=1e-7
  )
