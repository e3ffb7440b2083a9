"""Draws every quantizer's transfer function and gradient: one picture.

  pip install -e '.[plots]'
  python docs/plot_quantizers.py

Writes docs/images/quantizers.png, which docs/quantizers.md shows.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np

from qgan_jax import quantizers

BITS = 3
COLUMNS = 4
END = 3.2  # Of the horizontal axis, in standard deviations.
XHAT, GRADIENT, LEARNED = '#1f4e9c', '#e07b00', '#2a9d5c'


def curves(name: str, x: np.ndarray) -> tuple[np.ndarray, ...]:
  """(x̂, ∂x̂/∂x, ∂x̂/∂ the first learned param or nothing) along x."""
  bits = jnp.float32(-1 if name == 'grid' else BITS)
  quantizer = quantizers.by_name(name)
  # Cut, so that the end of every range is seen.
  sample = np.clip(np.random.RandomState(0).randn(5000), -2.4, 2.4)
  # What clips to positive values gets positive values.
  if name == 'pact':
    sample = np.abs(sample)
  params = quantizer.fit(jnp.asarray(sample, jnp.float32), bits)
  if name.startswith('mx'):  # A block of its own for every point.
    points = jnp.asarray(np.stack([x] + 31 * [np.full_like(x, END)], 1))
    y = quantizer.apply(points, quantizer.fit(points, bits), bits)[:, 0]
    return np.asarray(y), np.ones_like(x)

  def apply(x, params):
    key = jax.random.PRNGKey(1) if quantizer.stochastic else None
    return quantizer.apply(x, params, bits, key)

  y = apply(jnp.asarray(x), params)
  gx = jax.grad(lambda x: jnp.sum(apply(x, params)))(jnp.asarray(x))
  if not quantizer.learned or name == 'codebook':
    return np.asarray(y), np.asarray(gx)
  first = quantizer.learned[0]

  def of_one(x):
    return jax.grad(lambda p: jnp.sum(apply(x[None], p)))(params)[first]

  return tuple(map(np.asarray, (y, gx, jax.vmap(of_one)(jnp.asarray(x)))))


def draw(axes: plt.Axes, name: str) -> None:
  """One quantizer's panel."""
  x = np.linspace(-END, END, 1201).astype(np.float32)
  y, gx, *learned = curves(name, x)
  axes.plot(x, x, color='0.85', lw=1)
  if quantizers.by_name(name).stochastic:
    axes.plot(x[::6], y[::6], '.', color=XHAT, ms=2)
  else:
    axes.plot(x, y, color=XHAT, lw=1.4, drawstyle='steps-mid')
  axes.plot(x, gx, color=GRADIENT, lw=1.2)
  for gradient in learned:
    axes.plot(x, gradient, color=LEARNED, lw=1, ls=(0, (3, 1)))
  axes.set_title(name, fontsize=10, family='monospace', pad=3)
  axes.set_xlim(-END, END)
  axes.set_ylim(-END, END)
  axes.set_xticks([-2, 0, 2])
  axes.set_yticks([-2, 0, 2])
  axes.tick_params(labelsize=7, length=2)
  axes.grid(color='0.95', lw=0.5)


def main() -> None:
  """Draws them all."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  default = Path(__file__).parent / 'images' / 'quantizers.png'
  parser.add_argument('--out', type=Path, default=default)
  path = parser.parse_args().out
  names = [name for name in quantizers.NAMES if name != 'bwn']  # As xnor.
  rows = -(-len(names) // COLUMNS)
  figure, grid = plt.subplots(rows, COLUMNS, figsize=(10, 2.3 * rows))
  for axes in grid.flat[len(names) :]:
    axes.axis('off')
  for axes, name in zip(grid.flat, names, strict=False):
    draw(axes, name)
  handles = [
    plt.Line2D([], [], color=XHAT, label='x̂'),
    plt.Line2D([], [], color=GRADIENT, label='∂x̂/∂x'),
    plt.Line2D([], [], color=LEARNED, ls='--', label='∂x̂/∂ learned scale'),
  ]
  figure.legend(handles=handles, loc='upper center', ncol=3, frameon=False)
  figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / (2.3 * rows)))
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=90, metadata={'Software': None})
  print(f'wrote {path}')


if __name__ == '__main__':
  main()
