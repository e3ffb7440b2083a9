"""4×4 stride-2 convolutions as matrix products, fast on a CPU to any order.

XLA:CPU computes the kernel gradient of a transposed convolution as a dilated
convolution, many times slower than the rest of a DCGAN's step. The three
bilinear maps of a strided convolution,

  `conv(x, k)`, its adjoint in x: `conv_adjoint(y, k)`, and
  its adjoint in k: `kernel_adjoint(x, y)`,

are closed under differentiation: the derivative of each is made of the other
two. Each is therefore a `jax.custom_vjp` around four dense matrix products on
shifted windows, and gradients of any order, a gradient penalty's included,
never leave the set. On accelerators the layers below use XLA's convolutions.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array
# Where the four products sit: a 4×4 window is 2×2 shifts of 2×2 sub-pixels.
_SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1))


def _blocks(x: Array) -> Array:
  """SAME-pads x [B, H, W, C] and gathers 2×2 pixels: [B, h+1, w+1, 4C]."""
  b, height, width, c = x.shape
  pads = [(1, 1 + size % 2) for size in (height, width)]
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  h, w = x.shape[1] // 2, x.shape[2] // 2
  x = x.reshape(b, h, 2, w, 2, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, h, w, 4 * c)


def _unblocks(z: Array, height: int, width: int) -> Array:
  """The adjoint of `_blocks`: [B, h+1, w+1, 4C] to [B, height, width, C]."""
  b, h, w, c = z.shape
  z = z.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
  z = z.reshape(b, 2 * h, 2 * w, c // 4)
  return z[:, 1 : 1 + height, 1 : 1 + width]


def _to_matrices(k: Array) -> Array:
  """[4, 4, I, O] to a matrix for each shift: [2, 2, 4I, O]."""
  i, o = k.shape[2:]
  k = k.reshape(2, 2, 2, 2, i, o).transpose(0, 2, 1, 3, 4, 5)
  return k.reshape(2, 2, 4 * i, o)


def _from_matrices(m: Array) -> Array:
  """The inverse of `_to_matrices`."""
  i, o = m.shape[2] // 4, m.shape[3]
  m = m.reshape(2, 2, 2, 2, i, o).transpose(0, 2, 1, 3, 4, 5)
  return m.reshape(4, 4, i, o)


def _window(blocks: Array, shift: tuple[int, int], h: int, w: int) -> Array:
  """The blocks under one shift, as the rows of a matrix [B·h·w, 4C]."""
  i, j = shift
  return blocks[:, i : i + h, j : j + w].reshape(-1, blocks.shape[-1])


@jax.custom_vjp
def conv(x: Array, k: Array) -> Array:
  """Convolves with stride 2 and SAME padding.

  Args:
    x: images [B, H, W, I].
    k: kernel [4, 4, I, O].

  Returns:
    [B, ceil(H/2), ceil(W/2), O], as `lax.conv_general_dilated`.
  """
  blocks, matrices = _blocks(x), _to_matrices(k)
  h, w = blocks.shape[1] - 1, blocks.shape[2] - 1
  y = sum(_window(blocks, s, h, w) @ matrices[s] for s in _SHIFTS)
  return jnp.reshape(y, (x.shape[0], h, w, k.shape[-1]))


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
  b, h, w, o = y.shape
  matrices = _to_matrices(k)
  # One product for all shifts: [B·h·w, O] @ [O, 4·4I].
  columns = matrices.transpose(3, 0, 1, 2).reshape(o, -1)
  z = (y.reshape(-1, o) @ columns).reshape(b, h, w, 2, 2, -1)
  shifted = (
    jnp.pad(z[:, :, :, i, j], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0)))
    for i, j in _SHIFTS
  )
  return _unblocks(functools.reduce(jnp.add, shifted), *size)


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
  blocks = _blocks(x)
  h, w, o = y.shape[1:]
  rows = y.reshape(-1, o)
  m = jnp.stack([_window(blocks, s, h, w).T @ rows for s in _SHIFTS])
  return _from_matrices(m.reshape(2, 2, -1, o))


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
  del size  # g has it.
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

  Takes the matrix form where it is the faster one: on a CPU, for 4×4 kernels,
  stride 2, SAME padding, one group.
  """
  if (
    jax.default_backend() == 'cpu'
    and rhs.shape[:2] == (4, 4)
    and tuple(window_strides) == (2, 2)
    and padding == 'SAME'
    and kwargs.get('feature_group_count', 1) == 1
  ):
    return conv(lhs, rhs)
  return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **kwargs)


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
    if jax.default_backend() == 'cpu':
      # Flax does not turn the kernel round; the adjoint of a convolution does.
      turned = kernel[::-1, ::-1].swapaxes(2, 3)
      height, width = inputs.shape[1:3]
      y = conv_adjoint(inputs, turned, 2 * height, 2 * width)
    else:
      y = lax.conv_transpose(inputs, kernel, (2, 2), 'SAME')
    return y + bias
