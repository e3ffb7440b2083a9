"""Inception-2015-12-05, the network that defines FID, as a Flax module.

Layers are named as in the PyTorch port, whose weights it reads. It differs from
torchvision's Inception v3 in two points: average pools leave out the padding,
and the last block pools by maximum.
"""

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors
from safetensors import SafetensorError

from qgan_jax.errors import UserError
from qgan_jax.metrics.extractors import (
  Extractor,
  Features,
  hash_weights,
  in_batches,
)
from qgan_jax.metrics.torch_file import read_state_dict

NAME = 'inception-2015-12-05'
NUM_FEATURES = 2048
_SIZE = 299


def _conv(x, name, width, kernel=(1, 1), strides=1, padding='SAME'):
  """Convolution and ReLU; batch normalisation is folded into its weights."""
  conv = nn.Conv(width, kernel, strides=strides, padding=padding, name=name)
  return nn.relu(conv(x))


def _average(x):
  return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)


def _halve(x):
  return nn.max_pool(x, (3, 3), strides=(2, 2))


class _BlockA(nn.Module):
  pool_width: int

  @nn.compact
  def __call__(self, x):
    b5 = _conv(x, 'branch5x5_1', 48)
    b3 = _conv(x, 'branch3x3dbl_1', 64)
    b3 = _conv(b3, 'branch3x3dbl_2', 96, (3, 3))
    branches = [
      _conv(x, 'branch1x1', 64),
      _conv(b5, 'branch5x5_2', 64, (5, 5)),
      _conv(b3, 'branch3x3dbl_3', 96, (3, 3)),
      _conv(_average(x), 'branch_pool', self.pool_width),
    ]
    return jnp.concatenate(branches, -1)


class _BlockB(nn.Module):
  @nn.compact
  def __call__(self, x):
    b3 = _conv(x, 'branch3x3dbl_1', 64)
    b3 = _conv(b3, 'branch3x3dbl_2', 96, (3, 3))
    branches = [
      _conv(x, 'branch3x3', 384, (3, 3), 2, 'VALID'),
      _conv(b3, 'branch3x3dbl_3', 96, (3, 3), 2, 'VALID'),
      _halve(x),
    ]
    return jnp.concatenate(branches, -1)


class _BlockC(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x):
    b7 = _conv(x, 'branch7x7_1', self.width)
    b7 = _conv(b7, 'branch7x7_2', self.width, (1, 7))
    double = _conv(x, 'branch7x7dbl_1', self.width)
    double = _conv(double, 'branch7x7dbl_2', self.width, (7, 1))
    double = _conv(double, 'branch7x7dbl_3', self.width, (1, 7))
    double = _conv(double, 'branch7x7dbl_4', self.width, (7, 1))
    branches = [
      _conv(x, 'branch1x1', 192),
      _conv(b7, 'branch7x7_3', 192, (7, 1)),
      _conv(double, 'branch7x7dbl_5', 192, (1, 7)),
      _conv(_average(x), 'branch_pool', 192),
    ]
    return jnp.concatenate(branches, -1)


class _BlockD(nn.Module):
  @nn.compact
  def __call__(self, x):
    b3 = _conv(x, 'branch3x3_1', 192)
    b7 = _conv(x, 'branch7x7x3_1', 192)
    b7 = _conv(b7, 'branch7x7x3_2', 192, (1, 7))
    b7 = _conv(b7, 'branch7x7x3_3', 192, (7, 1))
    branches = [
      _conv(b3, 'branch3x3_2', 320, (3, 3), 2, 'VALID'),
      _conv(b7, 'branch7x7x3_4', 192, (3, 3), 2, 'VALID'),
      _halve(x),
    ]
    return jnp.concatenate(branches, -1)


class _BlockE(nn.Module):
  max_pool: bool

  @nn.compact
  def __call__(self, x):
    b3 = _conv(x, 'branch3x3_1', 384)
    double = _conv(x, 'branch3x3dbl_1', 448)
    double = _conv(double, 'branch3x3dbl_2', 384, (3, 3))
    if self.max_pool:
      pooled = nn.max_pool(x, (3, 3), padding='SAME')
    else:
      pooled = _average(x)
    branches = [
      _conv(x, 'branch1x1', 320),
      _conv(b3, 'branch3x3_2a', 384, (1, 3)),
      _conv(b3, 'branch3x3_2b', 384, (3, 1)),
      _conv(double, 'branch3x3dbl_3a', 384, (1, 3)),
      _conv(double, 'branch3x3dbl_3b', 384, (3, 1)),
      _conv(pooled, 'branch_pool', 192),
    ]
    return jnp.concatenate(branches, -1)


def _resize_matrix(size: int) -> np.ndarray:
  """TensorFlow 1's bilinear resize of one axis to 299, `[299, size]`."""
  position = np.arange(_SIZE, dtype=np.float32) * np.float32(size / _SIZE)
  low = position.astype(int)
  rows, matrix = np.arange(_SIZE), np.zeros((_SIZE, size), np.float32)
  matrix[rows, low] = 1 - (position - low)
  matrix[rows, np.minimum(low + 1, size - 1)] += position - low
  return matrix


def resize_like_tensorflow1(images: jax.Array) -> jax.Array:
  """Bilinear resize of `[N, H, W, C]` to 299×299: no antialiasing, no centring.

  The graph behind the published FID numbers resizes in this way. It is exactly
  TensorFlow 1's `resize_bilinear` with `align_corners=False`.
  """
  _, height, width, _ = images.shape
  rows, columns = _resize_matrix(height), _resize_matrix(width)
  return jnp.einsum('yh,nhwc,xw->nyxc', rows, images, columns)


class Inception(nn.Module):
  """Maps uint8 images to 2048 features (pool3) and 1008 logits."""

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Applies the network.

    Args:
      images: uint8, `[N, H, W, C]`; C = 1 is repeated to 3.

    Returns:
      Features `[N, 2048]` and logits `[N, 1008]`.
    """
    x = images.astype(jnp.float32)
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    x = (resize_like_tensorflow1(x) - 128) / 128
    x = _conv(x, 'Conv2d_1a_3x3', 32, (3, 3), 2, 'VALID')
    x = _conv(x, 'Conv2d_2a_3x3', 32, (3, 3), padding='VALID')
    x = _halve(_conv(x, 'Conv2d_2b_3x3', 64, (3, 3)))
    x = _conv(x, 'Conv2d_3b_1x1', 80)
    x = _halve(_conv(x, 'Conv2d_4a_3x3', 192, (3, 3), padding='VALID'))
    x = _BlockA(32, name='Mixed_5b')(x)
    x = _BlockA(64, name='Mixed_5c')(x)
    x = _BlockA(64, name='Mixed_5d')(x)
    x = _BlockB(name='Mixed_6a')(x)
    x = _BlockC(128, name='Mixed_6b')(x)
    x = _BlockC(160, name='Mixed_6c')(x)
    x = _BlockC(160, name='Mixed_6d')(x)
    x = _BlockC(192, name='Mixed_6e')(x)
    x = _BlockD(name='Mixed_7a')(x)
    x = _BlockE(False, name='Mixed_7b')(x)
    x = _BlockE(True, name='Mixed_7c')(x)
    features = x.mean((1, 2))
    # The inception score's own code leaves the bias of the logits out.
    return features, nn.Dense(1008, use_bias=False, name='fc')(features)


def convert(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Parameters of `Inception` from a PyTorch state dict.

  Args:
    state_dict: Arrays by PyTorch's names, `Mixed_5b.branch1x1.conv.weight`.

  Raises:
    UserError: An array is missing or has the wrong shape.
  """

  def fold(path: tuple[jax.tree_util.DictKey, ...], like: Any) -> np.ndarray:
    *layer, kind = (str(key.key) for key in path)
    prefix = '.'.join(layer)
    if layer == ['fc']:
      array = state_dict['fc.weight'].T
    else:
      gain, bias, mean, var = (
        state_dict[f'{prefix}.bn.{name}'].astype(np.float64)
        for name in ('weight', 'bias', 'running_mean', 'running_var')
      )
      gain = gain / np.sqrt(var + 1e-3)
      if kind == 'bias':
        array = bias - mean * gain
      else:
        kernel = state_dict[f'{prefix}.conv.weight'].transpose(2, 3, 1, 0)
        array = kernel * gain
    if array.shape != like.shape:
      raise UserError(
        f'Inception weights: {prefix} has a {kind} of shape {array.shape} in '
        f'place of {like.shape}: use pt_inception-2015-12-05-6726825d.pth'
      )
    return array.astype(np.float32)

  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
  shapes = jax.eval_shape(Inception().init, jax.random.key(0), image)
  try:
    return jax.tree_util.tree_map_with_path(fold, shapes['params'])
  except KeyError as error:
    raise UserError(
      f'Inception weights: {error} is missing: use '
      'pt_inception-2015-12-05-6726825d.pth, or the same as safetensors'
    ) from None


def inception_extractor(path: str | os.PathLike) -> Extractor:
  """The extractor of FID, from a file of weights.

  Args:
    path: `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid, the equal file
      `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity, or the same
      arrays as `.safetensors`.

  Raises:
    UserError: The file is missing, damaged, or holds another network.
  """
  path = Path(path)
  if path.suffix == '.safetensors':
    try:
      state_dict = safetensors.load_file(path)
    except (OSError, SafetensorError) as error:
      raise UserError(
        f'the Inception weights {str(path)!r} cannot be read: {error}'
      ) from error
  else:
    state_dict = read_state_dict(path)
  params = convert(state_dict)
  network = in_batches(Inception().apply, {'params': params}, batch_size=32)
  return Extractor(
    name=NAME,
    hash=hash_weights(state_dict),
    resize='bilinear to 299x299 as in TensorFlow 1 (align_corners=False)',
    value_range='[-1, 0.992]',
    accuracy=None,
    extract=lambda images: Features(*network(images)),
  )
