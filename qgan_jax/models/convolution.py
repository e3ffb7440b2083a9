"""Convolutions with fast gradients of any order: 4×4 of stride 2, 1×1, grouped.

XLA:CPU computes the kernel gradient of a transposed convolution as a dilated
convolution, many times slower than the rest of a DCGAN's step; on a GPU, the
convolutions of a population, each with kernels of its own, become grouped
ones, several times slower than batched matrix products. The three bilinear
maps of a strided convolution,

  `conv(x, k)`, its adjoint in x: `conv_adjoint(y, k)`, and
  its adjoint in k: `kernel_adjoint(x, y)`,

are closed under differentiation: the derivative of each is made of the other
two. Each is therefore a `jax.custom_vjp` around what computes it fastest, and
gradients of any order, a gradient penalty's included, never leave the set. On
a TPU the layers below use XLA's convolutions, and so they do in `as_written`.

Those of one pixel are products: `pointwise_conv`. Grouped ones are mended on a
CPU alone: see `grouped_conv`.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import contextvars
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from qgan_jax.backend import backend

Array = jax.Array
_AS_WRITTEN = contextvars.ContextVar('as_written', default=False)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
  """Layers are traced as the convolutions that they are, on every backend.

  For whoever reads a network's operations: a trace then shows
  `conv_general_dilated` and not the products that compute it faster.
  """
  token = _AS_WRITTEN.set(True)
  try:
    yield
  finally:
    _AS_WRITTEN.reset(token)


def _by_products() -> bool:
  """Whether the layers below compute in ways of their own."""
  return backend() != 'tpu' and not _AS_WRITTEN.get()


def _conv(x: Array, k: Array) -> Array:
  if backend() == 'gpu':
    return conv_by_product(x, k)
  return lax.conv_general_dilated(
    x, k, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def conv_by_product(x: Array, k: Array) -> Array:
  """`conv` as one product of all windows with the kernel."""
  b, height, width, i = x.shape
  h, w = -(-height // 2), -(-width // 2)
  padding = (0, 0), (1, 2 * h + 1 - height), (1, 2 * w + 1 - width), (0, 0)
  pairs = jnp.pad(x, padding).reshape(b, h + 1, 2, w + 1, 2, i)
  # A 4×4 window is two neighbouring pairs of rows, and of columns.
  rows = jnp.stack([pairs[:, :h], pairs[:, 1:]], 2)
  windows = jnp.stack([rows[:, :, :, :, :w], rows[:, :, :, :, 1:]], 5)
  windows = windows.transpose(0, 1, 4, 2, 3, 5, 6, 7).reshape(-1, 16 * i)
  return (windows @ k.reshape(16 * i, -1)).reshape(b, h, w, -1)


def _overlap(z: Array, other: Array, axis: int) -> Array:
  """Adds two arrays, the second shifted by one along the axis."""
  before, after = [(0, 0)] * z.ndim, [(0, 0)] * z.ndim
  before[axis], after[axis] = (1, 0), (0, 1)
  return jnp.pad(z, after) + jnp.pad(other, before)


def adjoint_by_product(y: Array, k: Array, size: tuple[int, int]) -> Array:
  """`conv_adjoint` as one product; its overlapping windows are then added."""
  b, h, w, o = y.shape
  i = k.shape[2]
  z = (y.reshape(-1, o) @ k.reshape(-1, o).T).reshape(b, h, w, 2, 2, 2, 2, i)
  z = _overlap(z[:, :, :, 0], z[:, :, :, 1], 1)
  z = _overlap(z[:, :, :, :, 0], z[:, :, :, :, 1], 2)
  z = z.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h + 2, 2 * w + 2, i)
  return z[:, 1 : 1 + size[0], 1 : 1 + size[1]]


@jax.custom_vjp
def conv(x: Array, k: Array) -> Array:
  """Convolves with stride 2 and SAME padding.

  Args:
    x: images [B, H, W, I].
    k: kernel [4, 4, I, O].

  Returns:
    [B, ceil(H/2), ceil(W/2), O], as `lax.conv_general_dilated`.
  """
  return _conv(x, k)


def conv_adjoint(y: Array, k: Array, height: int, width: int) -> Array:
  """The adjoint of `conv` in its images: a transposed convolution.

  Args:
    y: [B, h, w, O].
    k: kernel [4, 4, I, O] of the convolution that is transposed.
    height: H of the result, 2h or 2h - 1.
    width: W of the result, 2w or 2w - 1.

  Returns:
    [B, H, W, I].
  """
  return _conv_adjoint(y, k, (height, width))


def _conv_adjoint_primal(y: Array, k: Array, size: tuple[int, int]) -> Array:
  if backend() == 'gpu':
    return adjoint_by_product(y, k, size)
  b, h, w, o = y.shape
  i = k.shape[2]
  rows = y.reshape(-1, o)

  def line(r: int) -> Array:
    """What the kernel's row r adds, in pairs of pixels: [B, h, w+1, 2I]."""
    # One product per row: its result is added while it is still in the cache.
    z = (rows @ k[r].reshape(-1, o).T).reshape(b, h, w, 2, 2 * i)
    return _overlap(z[:, :, :, 0], z[:, :, :, 1], 2)

  lines = [_overlap(line(r), line(r + 2), 1) for r in (0, 1)]
  z = jnp.stack(lines, 2).reshape(b, 2 * h + 2, 2 * w + 2, i)
  return z[:, 1 : 1 + size[0], 1 : 1 + size[1]]


_conv_adjoint = jax.custom_vjp(_conv_adjoint_primal, nondiff_argnums=(2,))


@jax.custom_vjp
def kernel_adjoint(x: Array, y: Array) -> Array:
  """The adjoint of `conv` in its kernel.

  Args:
    x: images [B, H, W, I].
    y: [B, ceil(H/2), ceil(W/2), O].

  Returns:
    [4, 4, I, O]: the sum over windows of x ⊗ y.
  """
  k = jax.ShapeDtypeStruct((4, 4, x.shape[-1], y.shape[-1]), x.dtype)
  return jax.linear_transpose(lambda k: _conv(x, k), k)(y)[0]


def _conv_fwd(x: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
  return conv(x, k), (x, k)


def _conv_bwd(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
  x, k = residuals
  return conv_adjoint(g, k, *x.shape[1:3]), kernel_adjoint(x, g)


def _conv_adjoint_fwd(
  y: Array, k: Array, size: tuple[int, int]
) -> tuple[Array, tuple[Array, Array]]:
  return _conv_adjoint(y, k, size), (y, k)


def _conv_adjoint_bwd(
  size: tuple[int, int], residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  del size  # It is in g's shape.
  y, k = residuals
  return conv(g, k), kernel_adjoint(g, y)


def _kernel_adjoint_fwd(
  x: Array, y: Array
) -> tuple[Array, tuple[Array, Array]]:
  return kernel_adjoint(x, y), (x, y)


def _kernel_adjoint_bwd(
  residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
  x, y = residuals
  return conv_adjoint(y, g, *x.shape[1:3]), conv(x, g)


conv.defvjp(_conv_fwd, _conv_bwd)
_conv_adjoint.defvjp(_conv_adjoint_fwd, _conv_adjoint_bwd)
kernel_adjoint.defvjp(_kernel_adjoint_fwd, _kernel_adjoint_bwd)


def strided_conv(
  lhs: Array,
  rhs: Array,
  window_strides: Sequence[int],
  padding: Any,
  **kwargs: Any,
) -> Array:
  """`lax.conv_general_dilated` for `nn.Conv(conv_general_dilated=…)`.

  Takes `conv` where it is the faster one: not on a TPU, for 4×4 kernels,
  stride 2, SAME padding, one group.
  """
  if (
    _by_products()
    and rhs.shape[:2] == (4, 4)
    and tuple(window_strides) == (2, 2)
    and padding == 'SAME'
    and kwargs.get('feature_group_count', 1) == 1
  ):
    return conv(lhs, rhs)
  return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **kwargs)


def pointwise_conv(
  lhs: Array,
  rhs: Array,
  window_strides: Sequence[int],
  padding: Any,
  **kwargs: Any,
) -> Array:
  """`lax.conv_general_dilated` for `nn.Conv(conv_general_dilated=…)`.

  A 1×1 kernel is one product for all pixels. XLA:CPU takes about five times as
  long for the kernel's gradient: as a convolution, its window is the image.
  Other kernels are convolved.
  """
  if (
    _by_products()
    and rhs.shape[:2] == (1, 1)
    and tuple(window_strides) == (1, 1)
    and padding in ('SAME', 'VALID')
    and kwargs.get('feature_group_count', 1) == 1
  ):
    return (lhs.reshape(-1, lhs.shape[-1]) @ rhs[0, 0]).reshape(
      *lhs.shape[:-1], -1
    )
  return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **kwargs)


def grouped_conv(
  lhs: Array,
  rhs: Array,
  window_strides: Sequence[int],
  padding: Any,
  *,
  feature_group_count: int = 1,
  **kwargs: Any,
) -> Array:
  """`lax.conv_general_dilated` for `nn.Conv(conv_general_dilated=…)`.

  XLA:CPU computes the gradients of grouped convolutions in plain loops, many
  times slower than the rest of a step. There, each group is a convolution of
  its own, and what sees all of an image, channel by channel, a sum of products.

  Args:
    lhs: [B, H, W, C].
    rhs: [h, w, C / groups, O].
    window_strides: of the convolution.
    padding: of the convolution.
    feature_group_count: groups of channels.
    **kwargs: others of `lax.conv_general_dilated`.
  """
  groups = feature_group_count
  if backend() != 'cpu' or not _by_products() or groups == 1:
    return lax.conv_general_dilated(
      lhs, rhs, window_strides, padding,
      feature_group_count=groups, **kwargs,
    )  # fmt: skip
  if (
    padding == 'VALID'
    and rhs.shape[:3] == (*lhs.shape[1:3], 1)
    and rhs.shape[3] == groups
  ):
    return jnp.einsum('bhwc,hwc->bc', lhs, rhs[:, :, 0])[:, None, None]
  return jnp.concatenate(
    [
      lax.conv_general_dilated(x, k, window_strides, padding, **kwargs)
      for x, k in zip(
        jnp.split(lhs, groups, -1), jnp.split(rhs, groups, -1), strict=True
      )
    ],
    -1,
  )


def conv4(features: int, stride: int, dtype: Any, name: str) -> nn.Conv:
  """A 4×4 convolution, as DCGAN and pix2pix have; stride 2 halves the sides."""
  return nn.Conv(
    features,
    (4, 4),
    (stride, stride),
    kernel_init=nn.initializers.normal(0.02),
    dtype=dtype,
    conv_general_dilated=strided_conv,
    name=name,
  )


class UpConv(nn.ConvTranspose):
  """`nn.ConvTranspose` with a 4×4 kernel that doubles height and width.

  The same parameters and results as Flax's layer with `kernel_size=(4, 4)`,
  `strides=(2, 2)`, `padding='SAME'`; only the way of computing differs.
  """

  features: int
  kernel_size: Sequence[int] = (4, 4)
  strides: Sequence[int] = (2, 2)
  kernel_init: Callable[..., Array] = nn.initializers.normal(0.02)

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    """Maps [B, H, W, I] to [B, 2H, 2W, features]."""
    shape = (4, 4, inputs.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    bias = self.param(
      'bias', self.bias_init, (self.features,), self.param_dtype
    )
    promote: Any = self.promote_dtype  # Its type allows for None.
    inputs, kernel, bias = promote(inputs, kernel, bias, dtype=self.dtype)
    if _by_products():
      # Flax does not flip the kernel; the adjoint of a convolution does.
      turned = kernel[::-1, ::-1].swapaxes(2, 3)
      height, width = inputs.shape[1:3]
      y = conv_adjoint(inputs, turned, 2 * height, 2 * width)
    else:
      y = lax.conv_transpose(inputs, kernel, (2, 2), 'SAME')
    return y + bias


class PixelConv(nn.ConvTranspose):
  """`nn.ConvTranspose` from one pixel to all of its kernel, as one product.

  The same parameters and results as Flax's layer with `padding='VALID'` and
  `use_bias=False`; XLA:CPU's convolution takes ten times
  as long.
  """

  features: int
  kernel_size: Sequence[int] = (4, 4)
  kernel_init: Callable[..., Array] = nn.initializers.normal(0.02)

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    """Maps [B, 1, 1, I] to [B, *kernel_size, features]."""
    shape = (*self.kernel_size, inputs.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    promote: Any = self.promote_dtype  # Its type allows for None.
    inputs, kernel = promote(inputs, kernel, dtype=self.dtype)
    return jnp.einsum('bi,hwif->bhwf', inputs[:, 0, 0], kernel[::-1, ::-1])
