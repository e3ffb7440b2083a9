"""The contestants of `deploy.py`: one generator in every runtime and format."""

from collections.abc import Callable, Iterator
import copy
import functools
import importlib.util
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from measuring import Step
import numpy as np

from qgan_jax import artifacts, models
from qgan_jax.artifacts import drawer, runtimes
from qgan_jax.artifacts.formats import export
from qgan_jax.artifacts.layer import Layer
from qgan_jax.artifacts.onnx_graphs import onnx_model
from qgan_jax.artifacts.plan import make_plan, Plan
from qgan_jax.artifacts.tflite_graphs import tflite_model
from qgan_jax.artifacts.trace import Node
from qgan_jax.precision import Bits, Precision, Quantized, QuantizerSpec

LATENT_DIM = 64
BITS = (8, 4, 2)  # Of the weights; activations have 8.
QUANTIZE_STATIC = 'quantize_static, ONNX Runtime'
Draw = Callable[[np.ndarray], np.ndarray]


class Network:
  """A random generator, in float and in files.

  Args:
    model: its family, 'dcgan' or 'resnet'.
    size: side of the images.
    channels: of the last feature map.
    norm: 'group', 'batch' or 'none'.
    folder: for the files.
  """

  def __init__(
    self, model: str, size: int, channels: int, norm: str, folder: Path
  ):
    self.model = model
    self.kwargs = {
      'image_size': size,
      'channels': channels,
      'latent_dim': LATENT_DIM,
      'norm': norm,
    }
    self.norm, self.folder = norm, folder
    self.module: Any = models.make_generator(model, **self.kwargs)
    shapes = jax.eval_shape(
      lambda: self.module.init(jax.random.key(0), jnp.zeros((1, LATENT_DIM)))
    )
    rng = np.random.default_rng(0)
    self.variables = jax.tree.map(
      # Vectors are positive, since some are BatchNorm's variances.
      lambda x: np.float32(
        rng.standard_normal(x.shape) / np.sqrt(4 * x.shape[-2])
        if x.ndim > 1
        else 0.1 * rng.standard_normal(x.shape) + 0.5
      ),
      shapes,
    )
    precision = Precision(QuantizerSpec('uniform', -1), QuantizerSpec('affine'))
    run = functools.partial(
      jax.jit(precision.apply, static_argnums=0), self.module, self.variables
    )
    for bits in BITS:
      widths = Bits(jnp.float32(bits), jnp.float32(8))
      _, ranges = run({}, widths, drawer.latents(1, 0, LATENT_DIM))
      path = self.path(bits, 'generator.qgan')
      path.parent.mkdir(parents=True)
      network = Quantized(
        self.module, precision, widths, self.variables, ranges
      )
      artifacts.save(path, network)
      export(path, ['onnx', 'onnx-vnni', 'tflite', 'stablehlo'], path.parent)
    # The baselines' graph has the weights as trained, not rounded.
    network = artifacts.load(self.path(8, 'generator.qgan'))
    network = network.replace(variables=self.variables)
    self.plan = make_plan(network, integer=False)
    self.float_path = folder / 'float.onnx'
    self.float_path.write_bytes(
      onnx_model(self.plan, 'transposed', {'description': 'float32'})
    )
    self.float_tflite = folder / 'float.tflite'
    self.float_tflite.write_bytes(
      tflite_model(self.plan, {'description': 'float32'})
    )

  def path(self, bits: int, name: str) -> Path:
    """Of a file of the generator with weights of so many bits."""
    return self.folder / str(bits) / name

  @property
  def float_bytes(self) -> int:
    """Of the parameters, 4 each."""
    params = self.variables['params']
    return 4 * sum(x.size for x in jax.tree.leaves(params))

  def files(self) -> dict[str, Path]:
    """Every file by its contestant's name."""
    named = {
      'packed, JAX': 'generator.qgan',
      'StableHLO, JAX': 'generator.stablehlo',
      'int8, OpenVINO': 'generator-openvino.onnx',
      'int8, ONNX Runtime': 'generator-onnxruntime.onnx',
      'int8, LiteRT': 'generator.tflite',
    }
    files = {name: self.path(8, file) for name, file in named.items()}
    for bits in BITS[1:]:
      for name, file in named.items():
        title = name.replace('int8', f'W{bits}A8')
        title = title if title != name else f'{name}, W{bits}A8'
        files[title] = self.path(bits, file)
    # Below 8 bits the files for VNNI are the same.
    for runtime in ('OpenVINO', 'ONNX Runtime'):
      name = f'generator-{runtime.replace(" ", "").lower()}-vnni.onnx'
      files[f'int8 for VNNI, {runtime}'] = self.path(8, name)
    return files


def draws(network: Network, *, compiled: bool) -> dict[str, Draw]:
  """What draws from the network, by name.

  Args:
    network: the network.
    compiled: whether `torch.compile` takes part.

  Returns:
    Functions of latents, float32 [B, LATENT_DIM].
  """
  apply = jax.jit(network.module.apply)
  found: dict[str, Draw] = {
    'float, JAX': lambda z: np.asarray(apply(network.variables, z)),
    'float, ONNX Runtime': _opened(network.float_path, 'onnxruntime'),
    'float, OpenVINO': _opened(network.float_path, 'openvino'),
    'float, LiteRT': _opened(network.float_tflite, 'litert'),
    QUANTIZE_STATIC: _theirs(_quantize_static(network)),
  }
  for name, path in network.files().items():
    runtime = {
      'OpenVINO': 'openvino',
      'ONNX Runtime': 'onnxruntime',
      'LiteRT': 'litert',
    }.get(name.split(', ')[1], 'jax')
    if runtime != 'jax' or 'W' not in name:
      found[name] = _opened(path, runtime)
  # PyTorch's generator is a DCGAN with GroupNorm.
  alike = (network.model, network.norm) == ('dcgan', 'group')
  if alike and importlib.util.find_spec('torch'):
    found |= _torch_draws(network, compiled)
  return found


def _opened(path: Path, runtime: str) -> Draw:
  drawer = artifacts.open_drawer(path, runtime)
  return lambda z: drawer.draw(z, None)


def _theirs(path: Path) -> Draw:
  """Draws from a file that we did not write, in this process."""
  loaded = runtimes.RUNTIMES['onnxruntime']()(path.read_bytes())
  return lambda z: loaded.run([z])


def step(draw: Draw, batch: int) -> Step:
  """Draws one batch of the same latents."""
  z = drawer.latents(2, 0, LATENT_DIM)[:batch]
  return lambda: draw(z)


def _quantize_static(network: Network) -> Path:
  """ONNX Runtime's own quantization of the float graph."""
  from onnxruntime import quantization
  from onnxruntime.quantization import shape_inference

  class Latents(quantization.CalibrationDataReader):
    def __init__(self):
      self.batches = iter(range(4))

    def get_next(self):
      batch = next(self.batches, None)
      if batch is None:
        return None
      return {'latents': drawer.latents(1, batch, LATENT_DIM)}

  path = network.folder / 'quantize_static.onnx'
  prepared = str(network.folder / 'prepared.onnx')
  # As ONNX Runtime advises: else types after GroupNorm are not inferred.
  shape_inference.quant_pre_process(
    str(network.float_path), prepared, skip_symbolic_shape=True
  )
  quantization.quantize_static(
    prepared,
    str(path),
    Latents(),
    quant_format=quantization.QuantFormat.QDQ,
    per_channel=True,
    activation_type=quantization.QuantType.QUInt8,
    weight_type=quantization.QuantType.QInt8,
  )
  return path


def _torch_draws(network: Network, compiled: bool) -> dict[str, Draw]:
  import peer_torch
  import torch

  torch.compiler.reset()
  kwargs = network.kwargs
  module = peer_torch.Generator(
    kwargs['image_size'], kwargs['channels'], LATENT_DIM
  )
  peer_torch.load_generator(module, network.variables['params'])
  module.eval()
  found = {}
  for layout in ('contiguous', 'channels_last'):
    memory = getattr(torch, f'{layout}_format', torch.channels_last)
    laid: Any = copy.deepcopy(module).to(memory_format=memory)
    runs = {'PyTorch eager': laid}
    if compiled:
      runs['torch.compile'] = torch.compile(laid, dynamic=False)
    for name, run in runs.items():

      def draw(z: np.ndarray, run: Any = run) -> np.ndarray:
        with torch.inference_mode():
          return run(torch.from_numpy(z)).numpy().transpose(0, 2, 3, 1)

      found[f'{name}, {layout}'] = draw
  return found


def macs(plan: Plan) -> int:
  """Multiply-adds of one image's products with weights."""
  total = 0
  for node, layer in _layers(plan):
    # The pixels at which the whole kernel is multiplied: of the input where
    # each of its pixels is spread, else of the output.
    spread = layer.window is not None and max(layer.window.spread) > 1
    shape = node.inputs[0].shape if spread else node.output.shape
    rows = shape[1:-1] if len(layer.columns) < 2 else ()
    total += math.prod(rows) * layer.kernel.size
  return total


def traffic(plan: Plan, batch: int, bytes_each: int) -> int:
  """Bytes that have to move at least: weights, layers' inputs and outputs."""
  weights = values = 0
  for node, layer in _layers(plan):
    weights += layer.kernel.size
    values += math.prod(node.inputs[0].shape[1:])
    values += math.prod(node.output.shape[1:])
  return bytes_each * (weights + batch * values)


def _layers(plan: Plan) -> Iterator[tuple[Node, Layer]]:
  for node in plan.nodes:
    if node.op == 'layer':
      yield node, plan.layers[node.params['layer']]
