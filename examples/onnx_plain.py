"""Draws from an exported ONNX file in plain ONNX Runtime, without JAX.

  python -m qgan_jax.export --artifact=generator.qgan --format=onnx
  python examples/onnx_plain.py generator-onnxruntime.onnx images.png

The file's weights are integers, and ONNX Runtime multiplies them as integers.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def main(path: str, out: str) -> None:
  session = onnxruntime.InferenceSession(
    path, providers=['CPUExecutionProvider']
  )
  # The file says what it is: the length of a latent, the number of classes
  # (0 for none), the shape of an image, what it is quantized to.
  about = json.loads(session.get_modelmeta().custom_metadata_map['qgan'])
  print(about['description'])

  # Its inputs are `latents`, float32 [N, latent_dim], standard normal, and of a
  # conditional generator `labels`, int64 [N]. N may be anything.
  rng = np.random.default_rng(0)
  feeds = {'latents': rng.standard_normal((64, about['latent_dim']), 'f4')}
  if about['num_classes']:
    feeds['labels'] = np.arange(64) % about['num_classes']
  (images,) = session.run(None, feeds)  # [N, H, W, C] in [−1, 1]

  # 8 rows of 8 images.
  size, _, channels = about['image_shape']
  grid = images.reshape(8, 8, size, size, channels).swapaxes(1, 2)
  grid = grid.reshape(8 * size, 8 * size, channels)
  pixels = np.rint(127.5 * (grid + 1)).astype(np.uint8)
  Image.fromarray(pixels.squeeze()).save(out)
  print(f'{out}: {len(images)} images of {images.shape[1:]}')


if __name__ == '__main__':
  main(*sys.argv[1:])
