"""What a quantized GAN asks of a library: Qwix's answers, and ours.

  pip install -e '.[qwix]'
  python benchmarks/qwix_cases.py --rounds=0     # the cases alone
  python benchmarks/qwix_cases.py                # and the time of a step

Every case compares a small float network with itself quantized: the cosine of
their outputs or gradients, or the exception that was raised instead. Then one
training step of the same DCGAN is timed, by Qwix and by us, contestants in
turns as in train_step.py.
"""

import argparse
from collections.abc import Callable
import functools
from pathlib import Path
import statistics
from typing import Any, NamedTuple

import contestants
from contestants import Ours
import flax.linen as nn
import jax
import jax.numpy as jnp
from measuring import (
  foreign_share,
  save,
  say,
  say_whether_comparable,
  start_record,
  take_turns,
  WARM_UP,
)
import numpy as np
import peer_flax
import qwix
from rich.table import Table

from qgan_jax import data
from qgan_jax.precision import Bits, Precision, QuantizerSpec

PyTree = Any
Forward = Callable[[PyTree, jax.Array], jax.Array]
OURS = Precision(QuantizerSpec('uniform', -1), QuantizerSpec('uniform'), 0.0)


class Discriminator(nn.Module):
  """Images [B, 28, 28, 1] to logits [B]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Judges images."""
    for features in (16, 32):
      x = nn.leaky_relu(nn.Conv(features, (4, 4), (2, 2))(x), 0.2)
    return nn.Dense(1)(x.reshape(x.shape[0], -1))[:, 0]


class Case(NamedTuple):
  """What is asked.

  Attributes:
    title: in words.
    module: the float network.
    shape: of its input.
    weights: bits.
    activations: bits.
    measure: what of a network is compared.
    wanted: the least cosine that is right.
    compiled: whether by `jax.jit`, or one operation after another.
  """

  title: str
  module: nn.Module
  shape: tuple[int, ...]
  weights: int
  activations: int
  measure: Callable[[Forward, PyTree, jax.Array], jax.Array]
  wanted: float
  compiled: bool = True


def outputs(forward: Forward, variables: PyTree, x: jax.Array) -> jax.Array:
  return forward(variables, x)


def kernel_gradients(
  forward: Forward, variables: PyTree, x: jax.Array
) -> jax.Array:
  def loss(variables):
    return jnp.mean(jnp.square(forward(variables, x) - 1))

  return kernels(jax.grad(loss)(variables))


def penalty_gradients(
  forward: Forward, variables: PyTree, x: jax.Array
) -> jax.Array:
  """Of WGAN-GP's (‖∂D/∂x‖ − 1)², with respect to the kernels."""

  def penalty(variables):
    g = jax.grad(lambda x: forward(variables, x).sum())(x)
    norms = jnp.sqrt(jnp.sum(jnp.square(g), (1, 2, 3)))
    return jnp.mean(jnp.square(norms - 1))

  return kernels(jax.grad(penalty)(variables))


def kernels(tree: PyTree) -> jax.Array:
  """All convolution kernels as one vector."""
  return jnp.concatenate(
    [x.ravel() for x in jax.tree.leaves(tree) if x.ndim == 4]
  )


def cases() -> list[Case]:
  image, features = (8, 28, 28, 1), (4, 8, 8, 8)
  d = Discriminator()
  grouped = nn.Conv(16, (3, 3), feature_group_count=4)
  up = nn.ConvTranspose(16, (4, 4), (2, 2))
  flipped = nn.ConvTranspose(16, (4, 4), (2, 2), transpose_kernel=True)
  return [
    Case('W8A8 convolutions', d, image, 8, 8, outputs, 0.99),
    Case('their gradient', d, image, 8, 8, kernel_gradients, 0.99),
    Case('gradient penalty', d, image, 8, 8, penalty_gradients, 0.95),
    Case('W4A8 convolutions', d, image, 4, 8, outputs, 0.95),
    Case('W4A4 convolutions', d, image, 4, 4, outputs, 0.9),
    Case('W1A8 convolutions', d, image, 1, 8, outputs, 0.3),
    Case('grouped, W8A8', grouped, features, 8, 8, outputs, 0.99),
    Case('its gradient', grouped, features, 8, 8, kernel_gradients, 0.99),
    Case('ConvTranspose, W8A8', up, features, 8, 8, outputs, 0.99),
    Case('transpose_kernel=True', flipped, features, 8, 8, outputs, 0.99),
    Case('… not compiled', flipped, features, 8, 8, outputs, 0.99, False),
  ]


def ours(module: nn.Module, weights: Any, activations: Any) -> Forward:
  bits = Bits(jnp.float32(weights), jnp.float32(activations))

  def forward(variables, x):
    params = OURS.quantize_weights(variables['params'], bits)
    return OURS.apply(module, {'params': params}, {}, bits, x)[0]

  return forward


def theirs(module: nn.Module, weights: Any, activations: Any) -> Forward:
  rule = qwix.QtRule(
    module_path='.*',
    weight_qtype=f'int{weights}',
    act_qtype=f'int{activations}',
  )
  return qwix.quantize_model(module, qwix.QtProvider([rule])).apply


def reason(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return f'{type(error).__name__}: {lines[0] if lines else ""}'[:90]


def ask(case: Case, library: Callable[..., Forward]) -> dict[str, Any]:
  """The cosine with float, or what was raised."""
  rng = np.random.RandomState(0)
  x = jnp.asarray(rng.rand(*case.shape), jnp.float32)
  variables = case.module.init(jax.random.PRNGKey(0), x)
  a = np.ravel(case.measure(case.module.apply, variables, x)).astype(float)
  try:
    forward = library(case.module, case.weights, case.activations)
    run = functools.partial(case.measure, forward)
    b = (jax.jit(run) if case.compiled else run)(variables, x)
  except Exception as error:  # Whatever a library raises is its answer.
    return {'right': False, 'raised': reason(error)}
  b = np.ravel(b).astype(float)
  norms = np.linalg.norm(a) * np.linalg.norm(b)
  cosine = float(a @ b / norms) if norms else 0.0
  return {
    'right': cosine >= case.wanted,
    'cosine': cosine,
    'nonzero': float((b != 0).mean()),
  }


def ask_for_traced_bits(library: Callable[..., Forward]) -> dict[str, Any]:
  """Whether one compiled program serves several bit widths."""
  module = Discriminator()
  x = jnp.asarray(np.random.RandomState(0).rand(8, 28, 28, 1), jnp.float32)
  variables = module.init(jax.random.PRNGKey(0), x)
  traces = []

  @jax.jit
  def run(bits):
    traces.append(bits)
    return library(module, bits, bits)(variables, x)

  try:
    results = [run(bits) for bits in (2, 4, 8)]
  except Exception as error:
    return {'right': False, 'raised': reason(error)}
  different = len({float(y.sum()) for y in results}) == 3
  return {'right': different and len(traces) == 1, 'traces': len(traces)}


def times(rounds: int, channels: int) -> dict[str, Any]:
  """Median milliseconds of a training step, by contestant."""
  dataset = data.load(
    'digits', data_dir=None, image_size=28, channels=1, standin=False
  )
  images = dataset.train_images[: contestants.BATCH_SIZE]
  float_step = Ours(dataset, channels, 32, 'float32')
  steps = {
    'plain Flax': contestants.flax_step(
      float_step, images, channels, 'float32'
    ),
    'qgan_jax W8A8': Ours(dataset, channels, 8, 'float32').step,
    'qgan_jax W4A4': Ours(dataset, channels, 4, 'float32').step,
  }
  case: dict[str, Any] = {'channels': channels, 'rounds': rounds}
  for bits in (8, 4):
    name = f'Qwix W{bits}A{bits}'
    rule = qwix.QtRule(
      module_path='.*', weight_qtype=f'int{bits}', act_qtype=f'int{bits}'
    )
    g, d = (
      qwix.quantize_model(module, qwix.QtProvider([rule]))
      for module in (
        peer_flax.Generator(28, channels, jnp.float32),
        peer_flax.Discriminator(channels, jnp.float32),
      )
    )
    try:
      step = peer_flax.make_step(
        g,
        d,
        *float_step.params,
        images,
        latent_dim=contestants.LATENT_DIM,
        ema_decay=contestants.EMA_DECAY,
        **contestants.TRAINING,
      )
      step()
    except Exception as error:
      case[name] = reason(error)
    else:
      steps[name] = step
  for step in steps.values():
    for _ in range(WARM_UP):
      step()
  with foreign_share(case):
    seconds = take_turns(steps, rounds)
  for name, values in seconds.items():
    case[name] = 1e3 * statistics.median(values)
  return case


def say_cases(rows: list[dict[str, Any]]) -> None:
  table = Table(caption='cosine with the float network; ✓ is right')
  for title in ('case', 'Qwix', 'qgan_jax'):
    table.add_column(title)
  for row in rows:
    cells = []
    for answer in (row['qwix'], row['qgan_jax']):
      text = answer.get('raised') or (
        f'{answer["cosine"]:.3f}'
        if 'cosine' in answer
        else f'{answer["traces"]} trace of three widths'
      )
      if answer.get('nonzero', 1) < 0.5:
        text += f', {answer["nonzero"]:.1%} not 0'
      cells.append(f'{"✓" if answer["right"] else "✗"} {text}')
    table.add_row(row['case'], *cells)
  say(table)


def say_times(case: dict[str, Any]) -> None:
  table = Table(caption=f'one step, {case["channels"]} channels, batch 64')
  for title in ('contestant', 'median ms', 'ours over it'):
    table.add_column(title)
  for name in ('plain Flax', 'Qwix W8A8', 'Qwix W4A4'):
    value = case[name]
    if isinstance(value, str):
      table.add_row(name, value, '')
      continue
    mine = case['qgan_jax W4A4' if '4' in name else 'qgan_jax W8A8']
    table.add_row(name, f'{value:.1f}', f'{mine / value:.2f}')
  for name in ('qgan_jax W8A8', 'qgan_jax W4A4'):
    table.add_row(name, f'{case[name]:.1f}', '')
  say(table)
  say_whether_comparable(case)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rounds', type=int, default=15, help='0: cases alone')
  parser.add_argument('--channels', type=int, default=64)
  parser.add_argument('--out', type=Path, help='folder for a JSON file')
  args = parser.parse_args()
  record = start_record(('jax', 'jaxlib', 'flax', 'qwix'))
  rows: list[dict[str, Any]] = [
    {'case': case.title, 'qwix': ask(case, theirs), 'qgan_jax': ask(case, ours)}
    for case in cases()
  ]
  rows.append(
    {
      'case': 'traced bits',
      'qwix': ask_for_traced_bits(theirs),
      'qgan_jax': ask_for_traced_bits(ours),
    }
  )
  record['cases'] = rows
  say_cases(rows)
  if args.rounds:
    record['step'] = times(args.rounds, args.channels)
    say_times(record['step'])
  save(record, args.out, 'qwix_cases')


if __name__ == '__main__':
  main()
