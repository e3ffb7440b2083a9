"""The keys of a config, each written down once.

`resolution.base` takes the defaults from here, config strings their short
names, `check.validate` what a key may hold, and `--help_config` and
docs/config.md all of it.
"""

from qgan_jax import models, quantizers
from qgan_jax.config.key import Group, Key
from qgan_jax.config.kinds import (
  BITS,
  BITS_OR_EXPONENT,
  choice,
  DECAY,
  FLAG,
  Kind,
  NAME,
  NOT_NEGATIVE,
  one_of,
  PAIRS,
  PATH,
  POSITIVE,
  SHARE,
  size,
  text,
  whole,
)
from qgan_jax.errors import did_you_mean, UserError
from qgan_jax.models import NAMES as FAMILIES
from qgan_jax.precision.activations import RANGES
from qgan_jax.training import optimizers
from qgan_jax.variants import augmentation, CLASSES, FROM_IMAGES, losses
from qgan_jax.variants.likelihoods import LIKELIHOODS

IMAGE_SIZE = size(16, models.LIMITS['image_size'])
# The networks, and what the short names of their keys begin with: `g_bits`.
NETWORKS = {'generator': 'g', 'discriminator': 'd'}
# What of a network has bits of its own, in the same way: `w_bits`.
ROLES = {'weights': 'w', 'activations': 'a'}

# What keys that are unset follow from.
DEFAULT_BITS = 8
# Optax's b1 = 0.9 makes GANs oscillate: Radford et al., 1511.06434, section 4.
OPTIMIZER_KWARGS = {'adam': {'b1': 0.5, 'b2': 0.99}}


def _argument(name: str, kind: Kind, help_: str) -> Key:
  """The key of an argument that optimizers take."""
  ours = ''.join(
    f'{kwargs[name]:g} with {optimizer}, else '
    for optimizer, kwargs in OPTIMIZER_KWARGS.items()
    if name in kwargs
  )
  path = f'optimizer_kwargs.{name}'
  return Key(path, kind, None, help_, unset=f"{ours}the optimizer's own")


_OF_FOLDERS = {'data.source': ('folder',)}
_OF_LATENTS = {'variant': tuple(v for v in CLASSES if v not in FROM_IMAGES)}
_OF_LOGITS, _OF_AUTOENCODERS = (
  {'variant': tuple(v for v, has in CLASSES.items() if role in has.values())}
  for role in ('Discriminator', 'Encoder')
)

# One entry is one row of a table: the formatter would make seven lines of it.
# fmt: off
# Keys that every network has, and that stand for all networks without a prefix.
SHARED = (
  Key('channels', whole(1, models.LIMITS['channels']), 32,
      'Channels of the feature maps next to the image; further in there are '
      'twice as many at each stage, in `resnet` and `r3gan` above 32 pixels '
      'alone.', is_attribute=True),
  Key('norm', choice('group', 'batch', 'instance', 'none'), None,
      'Normalization between the layers.',
      by_network={'generator': 'group', 'discriminator': 'none'},
      is_attribute=True),
  Key('activation_quantizer', choice(*quantizers.ACTIVATIONS), None,
      "Quantizer of the layers' inputs.",
      by_network={'generator': 'lsq', 'discriminator': 'lsq_plus'},
      follows='`affine` where `ranges` is given'),
  # `check` asks Optax whether there is such an optimizer and what it takes.
  Key('optimizer', text('momentum, or an optimizer of Optax'), 'adam',
      'Optimizer of weights and biases.'),
  Key('learning_rate', POSITIVE, 1e-3, 'Learning rate of that optimizer.'),
  Key('sparsity', DECAY, 0.0, "Share of every layer's weights that is pruned."),
  _argument('b1', DECAY, 'β₁ of Adam and its relatives.'),
  _argument('b2', DECAY, 'β₂ of Adam and its relatives.'),
  _argument('momentum', DECAY, 'Momentum of optimizers that have one.'),
  _argument('weight_decay', NOT_NEGATIVE, 'Weight decay of those with one.'),
)
# fmt: on


def _of_networks() -> tuple[Key, ...]:
  """The keys of single networks that the shared ones stand for."""
  return tuple(
    shared._replace(
      path=f'{network}.{shared.path}',
      name=f'{prefix}_{shared.short}',
      default=None,
      by_network={},
      follows='' if shared.unset else f'as `{shared.short}`',
      broader=(shared.short,),
    )
    for network, prefix in NETWORKS.items()
    for shared in SHARED
  )


# fmt: off
def _bits() -> tuple[Key, ...]:
  """The keys of bits: of everything, a network, a role, a network's role."""
  kinds = {'weights': BITS_OR_EXPONENT, 'activations': BITS}
  quantizer_of = {
    'weights': 'precision.quantizer',
    'activations': '{}.activation_quantizer',
  }
  return (
    Key('bits', BITS_OR_EXPONENT, None,
        'Bits of weights and activations of all networks.',
        follows=f'{DEFAULT_BITS}, or the width that the quantizer fixes; with '
        '`quantizer=grid` it has to be given'),
    *(Key(f'{n}_bits', BITS_OR_EXPONENT, None,
          f"Bits of the {network}'s weights and activations.",
          follows='as `bits`')
      for network, n in NETWORKS.items()),
    *(Key(f'{r}_bits', kinds[role], None,
          f'Bits of the {role} of all networks.', follows='as `bits`')
      for role, r in ROLES.items()),
    *(Key(f'{network}.bits.{role}', kinds[role], None,
          f"Bits of the {network}'s {role}.",
          follows=f'as `{n}_bits` or `{r}_bits`, whichever is given',
          name=f'{n}_{r}_bits', broader=('bits', f'{n}_bits', f'{r}_bits'),
          quantizer=quantizer_of[role].format(network))
      for network, n in NETWORKS.items() for role, r in ROLES.items()),
  )


GROUPS = (
  Group('Experiment and data', '', (
    Key('experiment', NAME, 'unnamed',
        "Name in the run's folder, and of the data unless `source` is given."),
    Key('model.name', text(f'{", ".join(FAMILIES)}, or a module of your own'),
        'dcgan',
        'Family of the networks, or a module with a `Generator` and a '
        '`Discriminator` of your own: `my_package.networks`.', name='model'),
    Key('data.source', text('a text'), None,
        'Data set: `digits`, a name in TensorFlow Datasets, or `folder`.',
        follows="the experiment's name"),
    Key('data.dir', PATH, None,
        'Where data sets lie; with `source=folder`, the folder of images, or '
        'a .zip or .tar of it: see [data](data.md).',
        unset='$TFDS_DATA_DIR, or ~/tensorflow_datasets'),
    Key('data.standin', FLAG, True,
        'Whether the digits stand in where MNIST or its like is not there; '
        'sweeps set it to false unless it is given.'),
    Key('data.image_size', IMAGE_SIZE, '28',
        'Height and width to which images are cropped and resized.'),
    Key('data.channels',
        one_of(1, 3, 4)._replace(allowed='1 (grey), 3 (RGB), 4 (RGBA)'),
        None, 'Channels to which images are converted.',
        unset='what the images have', name='image_channels'),
    Key('data.conditional', FLAG, False,
        'Whether the networks are told the class of an image.'),
    Key('data.group', choice('content', 'name'), 'content',
        'Which pictures of a folder stay together when a tenth is held out: '
        'only those whose files are the same, or all that share a file name.',
        only_with=_OF_FOLDERS),
    Key('data.flip', FLAG, False,
        'Whether training images are mirrored, left to right, half of the '
        'time.'),
    Key('data.fit', choice('crop', 'pad', 'stretch'), 'crop',
        'How pictures of a folder get that size: their centre, all of them '
        'with a border, or with other proportions.', only_with=_OF_FOLDERS),
    Key('data.pixel_art', FLAG, None,
        'Whether pictures of a folder are scaled by whole numbers and not '
        'smoothed.',
        unset='whether half of them have at most 64 colours',
        only_with=_OF_FOLDERS),
    Key('data.pairs', PAIRS, None,
        'Two folders of pictures in a folder, `A/B`: of one in A, the one in B '
        'of the same name is to be made, for `variant=pix2pix` or `cyclegan`.',
        unset='images by themselves'),
    Key('data.domains', PAIRS, None,
        'Two folders of pictures in a folder, `A/B`: of one in A, one like '
        'those in B is to be made, for `variant=cyclegan`.',
        unset='images by themselves'),
  )),
  Group('Bits', (
      'The most specific key that is given wins, and no quantizer takes a '
      'width that its definition does not have. Where a key of a network and '
      'one of a role are given and differ (`g_bits` and `a_bits`), the key of '
      'both (`g_a_bits`) has to be given as well. 32 is float: exactly the '
      'unquantized network. With `quantizer=grid`, the bits of weights are the '
      'exponent b of the step 2^b, and those of activations are `a_bits` and '
      'what is more specific.'),
    _bits()),
  Group('Quantizers',
    'Explained in [precision](precision.md) and [quantizers](quantizers.md).',
  (
    Key('precision.quantizer', choice(*quantizers.WEIGHTS), 'lsq',
        'Quantizer of the weights.'),
    Key('precision.per_channel', FLAG, True,
        'Whether weights have a scale for each output channel.'),
    Key('precision.ranges', choice(*RANGES), None,
        'Where activations have their range from, if they do not learn it.',
        follows='`moving`'),
    Key('precision.momentum', DECAY, 0.99,
        'Momentum of moving averages of ranges; 0 takes each batch by itself.',
        name=''),
    Key('precision.input_bits', BITS, 8,
        "Fewest bits of a network's own input: images, latents.", name=''),
    Key('precision.rules', text('rules, parted by semicolons'), None,
        'What single layers have instead, such as '
        '`generator/weights/up2: bits=8 quantizer=lsq`.',
        unset='the same for all layers'),
    Key('precision.gradient_quantizer', choice(*quantizers.GRADIENTS),
        'dorefa_gradient',
        "Quantizer of the gradients of the layers' outputs."),
    Key('precision.gradient_bits', BITS, 32,
        'Bits of these gradients.', quantizer='precision.gradient_quantizer'),
    Key('precision.learning_rate', NOT_NEGATIVE, 1e-3,
        'Learning rate of learned scales, in proportion to their size.',
        name='quantizer_learning_rate'),
  )),
  Group('Schedule of quantization and pruning',
    'Explained in [precision](precision.md#schedules).',
  (
    Key('precision.start_step', whole(0), None,
        'Steps in float before anything is quantized.',
        follows='half of `steps`, or 0 with `init_from`'),
    Key('precision.anneal_steps', whole(0), 0,
        'Steps after that in which bits fall from `anneal_from` to their '
        'target.'),
    Key('precision.anneal_from', whole(1, 16), 8, 'Bits that they fall from.'),
    Key('precision.prune_start', whole(0), 0, 'Steps before pruning begins.'),
    Key('precision.prune_steps', whole(0), 0,
        'Steps in which the sparsity rises to its target; 0 for all at once.'),
  )),
  Group('Loss', '', (
    Key('variant', choice(*CLASSES), 'gan',
        'Which networks are trained, and how. A decoder has the keys of the '
        'generator, and an encoder those of the discriminator.'),
    Key('loss.name', choice(*losses.LOSSES), 'nonsaturating',
        'What generator and discriminator of a GAN minimize.', name='loss',
        only_with=_OF_LOGITS),
    Key('loss.penalty', choice('none', *losses.PENALTIES), 'r1',
        "Penalty on the gradient of the discriminator's output by its input.",
        only_with=_OF_LOGITS),
    Key('loss.penalty_weight', NOT_NEGATIVE, None, 'Factor of the penalty.',
        follows=', '.join(
          f'{x:g} with `{name}`' for name, x in losses.PENALTY_WEIGHTS.items()
        ),
        only_with=_OF_LOGITS),
    Key('loss.penalty_fraction', SHARE, 0.125,
        'Share of the batch that the penalty is computed on.',
        only_with=_OF_LOGITS),
    Key('loss.beta', NOT_NEGATIVE, 1.0,
        "Factor of the KL divergence in a VAE's loss.",
        only_with=_OF_AUTOENCODERS),
    Key('loss.gamma', NOT_NEGATIVE, 0.01,
        "Factor of the distance in features in the loss of a VAE-GAN's "
        'decoder.', only_with={'variant': ('vae_gan',)}),
    Key('loss.likelihood', choice(*LIKELIHOODS), 'bernoulli',
        'Of an image, given what the decoder of a VAE draws.',
        only_with={'variant': ('vae',)}),
    Key('loss.noise', POSITIVE, 0.1,
        'Standard deviation of a pixel, in [−1, 1].',
        only_with={'variant': ('vae',), 'loss.likelihood': ('gaussian',)}),
    Key('loss.l1_weight', NOT_NEGATIVE, 100.0,
        'Factor of the absolute difference to the target in the loss of the '
        'generator of `pix2pix`.', only_with={'variant': ('pix2pix',)}),
    Key('loss.cycle_weight', NOT_NEGATIVE, 10.0,
        'Factor of the absolute difference between an image and what comes '
        'back of it, in the loss of the generators of `cyclegan`.',
        only_with={'variant': ('cyclegan',)}),
    Key('loss.augment', choice(*augmentation.AUGMENTATIONS), 'none',
        'How all images are changed at random that the discriminator sees, '
        'for [few images](variants.md#few-images).',
        only_with={'variant': ('gan',)}),
    Key('loss.augment_target', SHARE, augmentation.TARGET,
        'Mean sign of its logits of real images that `ada` aims at.',
        only_with={'loss.augment': ('ada',)}),
    Key('loss.augment_images', POSITIVE, augmentation.IMAGES,
        'Images in which the probability of `ada` goes from 0 to 1.',
        only_with={'loss.augment': ('ada',)}),
  )),
  Group('Networks', (
      'A name without a prefix stands for all networks; '
      + ', '.join(
        f'`{prefix}_` for the {name} alone' for name, prefix in NETWORKS.items()
      ) + '.'),
  (
    Key('discriminator.spectral_norm', FLAG, False,
        "Whether the discriminator's weights are divided by their largest "
        'singular value.', is_attribute=True),
    Key('model.attention', FLAG, False,
        'Whether the networks have self-attention; for `resnet`.',
        name='attention'),
    Key('generator.latent_dim', whole(1, models.LIMITS['latent_dim']), 64,
        'Length of the latent vector that an image is drawn from.',
        only_with=_OF_LATENTS),
    Key('generator.dropout', DECAY, 0.5,
        'Share of the features of small maps that a `unet` drops at random '
        'while it trains.', name='dropout', is_attribute=True),
    *SHARED,
    *_of_networks(),
    Key('discriminator.steps', whole(1), 1,
        'Updates of the discriminator for each one of the generator.',
        name='d_steps', only_with={'variant': ('gan', 'pix2pix', 'cyclegan')}),
  )),
  Group('Training', '', (
    Key('ema.decay', DECAY, 0.999,
        'Decay of the moving average of the generator, which is what is drawn, '
        'scored and packed.', name='ema'),
    Key('learning_rate_decay', choice(*optimizers.DECAYS), 'none',
        'How the learning rates of all networks fall to 0 over all steps.'),
    Key('steps', whole(1), 16_000, 'Training steps.'),
    Key('batch_size', whole(1), 32, 'Images in a batch, over all devices.'),
    Key('dtype', choice('float32', 'bfloat16'), 'float32',
        'What layers compute in; parameters are float32.'),
    Key('steps_per_call', whole(1), None,
        'Steps that a device takes in one call; has to divide `steps` and the '
        'steps between logs, samples, scores and checkpoints.',
        unset='on an accelerator as many as do so, up to 20; 1 on a CPU'),
    Key('seed', whole(0, 2**32 - 1), 0,
        'Decides first weights, the order of the data, latents and noise.'),
    Key('init_from', PATH, None,
        'Folder of a finished run, from whose networks this one starts.',
        unset='networks at random'),
  )),
  Group('Logs and checkpoints', '', (
    Key('logging.log_every', whole(1), 100, 'Steps between lines of metrics.'),
    Key('logging.sample_every', whole(1), None,
        'Steps between grids of samples.',
        follows='a twentieth of `steps`, in hundreds, at least 100'),
    Key('logging.eval_every', whole(1), 1000,
        'Steps between quick scores, which choose the best checkpoint.'),
    Key('logging.checkpoint_every', whole(1), 1000,
        'Steps between checkpoints.'),
    Key('logging.eval_samples', whole(2), 2000,
        'Images drawn for a quick score.', name=''),
    Key('logging.tracker', choice('none', 'wandb'), 'none',
        'Where metrics go beside `metrics.jsonl` and TensorBoard: `wandb` is '
        'Weights & Biases, see [report](report.md#other-trackers).'),
    Key('logging.diagnose', FLAG, True,
        'Whether what quantization does to every tensor is measured at the '
        'end.'),
    Key('logging.diagnose_every', whole(1), None,
        'Steps between such measurements before.', unset='the end alone'),
  )),
  Group('Scores', '', (
    Key('scores.samples', whole(10), 10_000,
        'Images drawn for the scores at the end.', name=''),
    Key('scores.extractor', choice('classifier', 'inception'), 'classifier',
        'Network in whose features images are compared.'),
    Key('scores.inception_weights', PATH, None,
        'File of the pt_inception-2015-12-05 weights.',
        unset='no Inception network', name='',
        only_with={'scores.extractor': ('inception',)}),
  )),
)
# fmt: on
KEYS = {key.path: key for group in GROUPS for key in group.keys}
SHORT_NAMES = {key.short: path for path, key in KEYS.items() if key.short}
# Keys that only set others: a resolved config is without them.
BROADER = {SHORT_NAMES[name] for key in KEYS.values() for name in key.broader}

# What `records` needs to read the runs of earlier versions: the last default of
# keys that are no more, and the names that other keys have now.
REMOVED = {
  'precision.alternate_steps': 0,
  'precision.first_last_bits': None,
  'precision.pruning': 'layer',
}
RENAMED = {'precision.activation_quantizer': 'activation_quantizer'}


def path_of(name: str) -> str:
  """The path of the key that a short name, or a path, stands for.

  Raises:
    UserError: there is no such key.
  """
  if name in SHORT_NAMES:
    return SHORT_NAMES[name]
  if name in KEYS:
    return name
  inside = [path for path in sorted(KEYS) if path.startswith(f'{name}.')]
  if inside:
    raise UserError(
      f'the config key {name!r} is a group; its keys are {", ".join(inside)}'
    )
  hint = did_you_mean(name, [*SHORT_NAMES, *KEYS])
  raise UserError(
    f'there is no config key {name!r}; '
    + (hint or f'the keys are {", ".join(SHORT_NAMES)}')
  )
