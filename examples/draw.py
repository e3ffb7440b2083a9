"""Draws images from a `.qgan` file, without the code that trained it.

  python examples/draw.py generator.qgan images.png

The latents have a fixed seed, so the images are the same each time.
"""

import sys

import numpy as np

import qgan_jax as q
from qgan_jax import artifacts


def main(path: str, out: str) -> None:
  # 1. The file holds the network: codes of its weights, ranges, architecture.
  network = q.load(path)
  # 2. It says what it is called with: here, latents of some length.
  (latent, *labels) = network.inputs
  rng = np.random.default_rng(0)
  z = rng.standard_normal((64, *latent.shape), np.float32)
  # 3. `network(z)` draws. `images` does, too, compiled and batch by batch, and
  #    brings the images to the host: float32 [N, H, W, C] in [−1, 1].
  classes = [np.arange(64) % network.module.num_classes for _ in labels]
  images = artifacts.images(network, z, *classes)

  artifacts.save_grid(out, artifacts.to_uint8(images))
  print(f'{out}: {len(images)} images of {images.shape[1:]}')


if __name__ == '__main__':
  main(*sys.argv[1:])
