"""Trains tiny GANs for a few steps: a program, for processes of its own.

python tiny_run.py OUT.npz VARIANT,… [HOST:PORT PROCESSES PROCESS]
"""

import os
from pathlib import Path
import signal
import sys

import jax
import numpy as np

from qgan_jax import config as config_lib
from qgan_jax import variants
from qgan_jax.data import Batches, ImageDataset
from qgan_jax.runs import build
from qgan_jax.training import devices, loop
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.tracking import Tracker

STEPS = 3
BATCH = 16
_SHARED = f'batch_size={BATCH},channels=8,optimizer=sgd,learning_rate=0.1,'
VARIANTS = {
  'batch': 'norm=batch,penalty=r1,conditional=true',
  'group': (
    'norm=group,spectral_norm=true,d_steps=2,penalty=gradient_penalty,'
    'augment=ada,flip=true,augment_images=1000'
  ),
  # Learned, at random, from the second step on: all alike on every layout.
  'learned': (
    'penalty=none,penalty_weight=0,quantizer=lsq,activation_quantizer=pact,'
    'gradient_bits=8,start_step=1'
  ),
  # Its loss is a sum over pixels: the rate is that of a sum.
  'vae': (
    'variant=vae,conditional=true,flip=true,start_step=0,g_learning_rate=0.001,'
    'd_learning_rate=0.001'
  ),
  'pix2pix': (
    'variant=pix2pix,model=unet,norm=instance,penalty=r1,flip=true,l1_weight=1'
  ),
  'cyclegan': (
    'variant=cyclegan,model=unet,norm=instance,penalty=r1,loss=least_squares,'
    'cycle_weight=1'
  ),
}


def make_pairs(size=16, input_channels=2):
  """Random pairs of an input of some channels and a target of one."""
  shape = (40, size, size, input_channels + 1)
  images = np.random.RandomState(0).randint(0, 256, shape).astype('uint8')
  held_out = images[::-1]
  return ImageDataset(
    'random',
    images,
    None,
    held_out,
    None,
    0,
    input_channels=input_channels,
    domains=(40, 40, 40, 40) if input_channels == 1 else None,
  )


def make_dataset():
  """Random 8×8 images of three classes: small, so that compiling is."""
  rng = np.random.RandomState(0)
  images = rng.randint(0, 256, (40, 8, 8, 1)).astype('uint8')
  labels = (np.arange(40) % 3).astype('int32')
  return ImageDataset('random', images, labels, images, labels, 3)


def make_config(arg):
  """A resolved config; its penalty sees 10 of the 16 images."""
  config = config_lib.override(
    config_lib.base(experiment='random'), _SHARED + arg
  )
  config.loss.penalty_fraction = 0.625
  return config_lib.resolve(config)


def train(arg):
  """The state before and after, the metrics of every step, and the step."""
  if jax.device_count() > 1:  # In one call, as on accelerators.
    arg += f',steps_per_call={STEPS}'
  config = make_config(arg)
  dataset = make_dataset()
  if config.variant in variants.FROM_IMAGES:
    # Both generators of a family make as many channels.
    alike = config.variant in variants.UNPAIRED
    dataset = make_pairs(input_channels=1 if alike else 2)
  setup = build.set_up(config, dataset, devices.make_layout(1))
  before = setup.init_state()
  if before.adapted:
    # So that images are changed, and the chance of it with the last step.
    adapted = {'augment_p': 0.5, 'augment_signs': 0.0, 'augment_steps': 1.0}
    before = before.replace(
      adapted={name: np.float32(value) for name, value in adapted.items()}
    )
  program = setup.program()
  batches = Batches(
    dataset.train_images,
    setup.labels,
    seed=0,
    batch_size=BATCH,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    process_devices=jax.local_device_count(),
  )
  state, metrics = program.put([before]), []
  for steps in loop.calls(0, STEPS, setup.steps_per_call):
    batch = loop.stack_batches(
      batches, steps, setup.variant.repeats, by_index=program.by_index
    )
    state, values = program(state, program.shard([batch]))
    metrics.append(values)
  (metrics,) = program.metrics(metrics)
  after = program.get(state)[0]
  # Replicas that drift apart are seen only where each of them is looked at.
  same = jax.tree.leaves(program.put([after]))
  for x, y in zip(jax.tree.leaves(state), same, strict=True):
    expected = y.addressable_shards[0].data
    for copy in x.addressable_shards:
      np.testing.assert_array_equal(copy.data, expected)
  return before, after, metrics, (program, batches)


def stop(folder, state, program, batches):
  """Trains until the last process alone is told to stop: its last step."""

  def signal_to_the_last(step, state):
    if step == 2 * STEPS and jax.process_index() == jax.process_count() - 1:
      os.kill(os.getpid(), signal.SIGTERM)
    return {}

  try:
    loop.train(
      [state],
      program,
      [
        loop.Member(
          batches=batches,
          checkpoints=Checkpoints(folder, primary=False),
          tracker=Tracker(
            folder,
            total_steps=99,
            first_step=STEPS,
            dataset='random',
            primary=False,
          ),
          periodic=(loop.Periodic(STEPS, signal_to_the_last),),
        )
      ],
      total_steps=99,
      repeats=1,
      log_every=2 * STEPS,
      checkpoint_every=99,
      steps_per_call=STEPS,
    )
  except loop.Stopped as stopped:
    return stopped.step


def main(out, names, *distributed):
  if distributed:
    address, processes, process = distributed
    devices.join(address, int(processes), int(process))
  arrays = {'devices': jax.device_count()}
  for name in names.split(','):
    before, after, metrics, how = train(VARIANTS[name])
    tree = {'before': before, 'after': after, 'metrics': metrics}
    for path, leaf in jax.tree.leaves_with_path(tree):
      key = jax.tree_util.keystr(path, simple=True, separator='/')
      arrays[f'{name}/{key}'] = leaf
  if distributed:
    arrays['stopped'] = stop(Path(out).parent, after, *how)
  np.savez(out, **arrays)
  devices.meet('end')


if __name__ == '__main__':
  main(*sys.argv[1:])
