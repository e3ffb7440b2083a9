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
# The networks, and the letters that begin the short names of their keys, as in
# `g_bits`.
NETWORKS = {'generator': 'g', 'discriminator': 'd'}
# The parts of a network that have bits of their own, and the letters that begin
# the short names of their keys, as in `w_bits`.
ROLES = {'weights': 'w', 'activations': 'a'}

# What keys that are unset follow from.
DEFAULT_BITS = 8
# Optax's default, b1 = 0.9, makes GANs oscillate: Radford et al.,
# https://arxiv.org/abs/1511.06434, section 4.
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
# Keys that every network has. Without a network's name before it, such a key
# sets all networks.
SHARED = (
  Key('channels', whole(1, models.LIMITS['channels']), 32,
      'Channels of the feature maps next to the image. Each further stage has '
      'twice as many; in `resnet` and `r3gan`, only if images have more than '
      '32 pixels on a side.', is_attribute=True),
  Key('norm', choice('group', 'batch', 'instance', 'none'), None,
      'Normalization between the layers.',
      by_network={'generator': 'group', 'discriminator': 'none'},
      is_attribute=True),
  Key('activation_quantizer', choice(*quantizers.ACTIVATIONS), None,
      "Quantizer of the activations, which are the layers' inputs.",
      by_network={'generator': 'lsq', 'discriminator': 'lsq_plus'},
      follows='`affine` if `ranges` is given'),
  # `check` asks Optax whether there is such an optimizer and what it takes.
  Key('optimizer', text('momentum, or an optimizer of Optax'), 'adam',
      'Optimizer of weights and biases; `momentum` is SGD with momentum 0.9.'),
  Key('learning_rate', POSITIVE, 1e-3, 'Learning rate of `optimizer`.'),
  Key('sparsity', DECAY, 0.0, "Share of every layer's weights that is pruned."),
  _argument('b1', DECAY, 'β₁ of Adam and similar optimizers.'),
  _argument('b2', DECAY, 'β₂ of Adam and similar optimizers.'),
  _argument('momentum', DECAY, 'Momentum of optimizers that have one.'),
  _argument('weight_decay', NOT_NEGATIVE,
            'Weight decay of optimizers that have one.'),
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
        follows=f'{DEFAULT_BITS}, or the fixed width of a quantizer that has '
        'one; with `quantizer=grid` it has to be given'),
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
        'Name of the experiment, in the default path of its runs; also the '
        'name of the data set unless `source` is given.'),
    Key('model.name', text(f'{", ".join(FAMILIES)}, or a module of your own'),
        'dcgan',
        'Family of networks, or a module of your own with a `Generator` and a '
        '`Discriminator`, such as `my_package.networks`.', name='model'),
    Key('data.source', text('a name'), None,
        'Data set: `digits`, a name from TensorFlow Datasets, or `folder` for '
        'a folder of pictures.',
        follows="the experiment's name"),
    Key('data.dir', PATH, None,
        'Folder that holds the data sets; with `source=folder`, the folder, '
        '.zip or .tar of pictures (see [data](data.md)).',
        unset='$TFDS_DATA_DIR, or ~/tensorflow_datasets'),
    Key('data.standin', FLAG, True,
        'Whether a run trains on `digits` if MNIST, or a data set of its '
        'family, is not available; sweeps set it to false unless it is given.'),
    Key('data.image_size', IMAGE_SIZE, '28',
        'Height and width to which images are cropped and resized.'),
    Key('data.channels',
        one_of(1, 3, 4)._replace(allowed='1 (grey), 3 (RGB), 4 (RGBA)'),
        None, 'Number of channels to which images are converted.',
        unset='what the images have', name='image_channels'),
    Key('data.conditional', FLAG, False,
        'Whether the networks are conditional: they get the class of each '
        'image as an input.'),
    Key('data.group', choice('content', 'name'), 'content',
        'Which pictures of a folder stay in the same part when a tenth is held '
        'out: `content`, identical files; `name`, all of the same file name.',
        only_with=_OF_FOLDERS),
    Key('data.flip', FLAG, False,
        'Whether each training image is mirrored left to right at random, half '
        'of the time.'),
    Key('data.fit', choice('crop', 'pad', 'stretch'), 'crop',
        'How pictures of a folder are brought to `image_size`: `crop` takes '
        'their centre, `pad` adds a border, `stretch` changes proportions.',
        only_with=_OF_FOLDERS),
    Key('data.pixel_art', FLAG, None,
        'Whether pictures of a folder are scaled by whole numbers, without '
        'smoothing.',
        unset='whether half of them have at most 64 colours',
        only_with=_OF_FOLDERS),
    Key('data.pairs', PAIRS, None,
        'Names of two folders inside `dir`, `A/B`, for `variant=pix2pix` or '
        '`cyclegan`: the picture in B is the target of the picture in A of the '
        'same name.',
        unset='images by themselves'),
    Key('data.domains', PAIRS, None,
        'Names of two folders inside `dir`, `A/B`, for `variant=cyclegan`: '
        'pictures in A are turned into pictures like those in B, without '
        'pairs.',
        unset='images by themselves'),
  )),
  Group('Bits', (
      'If several keys are given, the most specific one wins. If a key of a '
      'network and a key of a role differ (`g_bits` and `a_bits`), the key of '
      'both (`g_a_bits`) has to be given as well. A width that a quantizer '
      'does not have by its definition is refused. 32 is float: exactly the '
      'unquantized network. With `quantizer=grid`, the bits of weights are the '
      'exponent b of the step 2^b, and those of activations are set only by '
      '`a_bits`, `g_a_bits` and `d_a_bits`.'),
    _bits()),
  Group('Quantizers',
    'Explained in [precision](precision.md) and [quantizers](quantizers.md).',
  (
    Key('precision.quantizer', choice(*quantizers.WEIGHTS), 'lsq',
        'Quantizer of the weights.'),
    Key('precision.per_channel', FLAG, True,
        'Whether weights have a scale for each output channel.'),
    Key('precision.ranges', choice(*RANGES), None,
        'How the ranges of activations are computed, if they are not learned.',
        follows='`moving`'),
    Key('precision.momentum', DECAY, 0.99,
        'Momentum of the moving averages of ranges; with 0, each batch has its '
        'own range.',
        name=''),
    Key('precision.input_bits', BITS, 8,
        "Fewest bits of a network's own input, which is images or latents.",
        name=''),
    Key('precision.rules', text('rules, separated by semicolons'), None,
        'Settings of single layers that replace the general ones, such as '
        '`generator/weights/up2: bits=8 quantizer=lsq`.',
        unset='the same for all layers'),
    Key('precision.gradient_quantizer', choice(*quantizers.GRADIENTS),
        'dorefa_gradient',
        "Quantizer of the gradients of the layers' outputs."),
    Key('precision.gradient_bits', BITS, 32,
        "Bits of the gradients of the layers' outputs.",
        quantizer='precision.gradient_quantizer'),
    Key('precision.learning_rate', NOT_NEGATIVE, 1e-3,
        'Learning rate of the parameters that quantizers learn, such as '
        'scales; their steps are proportional to their size.',
        name='quantizer_learning_rate'),
  )),
  Group('Schedule of quantization and pruning',
    'Explained in [precision](precision.md#schedules).',
  (
    Key('precision.start_step', whole(0), None,
        'Steps in float before anything is quantized.',
        follows='half of `steps`, or 0 with `init_from`'),
    Key('precision.anneal_steps', whole(0), 0,
        'Steps after `start_step` in which the bits fall from `anneal_from` to '
        'their target.'),
    Key('precision.anneal_from', whole(1, 16), 8,
        'Bits at the beginning of `anneal_steps`.'),
    Key('precision.prune_start', whole(0), 0, 'Steps before pruning begins.'),
    Key('precision.prune_steps', whole(0), 0,
        'Steps after `prune_start` in which the sparsity rises to its target; '
        '0 prunes at once.'),
  )),
  Group('Loss', '', (
    Key('variant', choice(*CLASSES), 'gan',
        'Which networks are trained, and by which losses. Keys of the '
        'generator also apply to a decoder, and keys of the discriminator to '
        'an encoder.'),
    Key('loss.name', choice(*losses.LOSSES), 'nonsaturating',
        "Loss of a GAN's generator and discriminator.", name='loss',
        only_with=_OF_LOGITS),
    Key('loss.penalty', choice('none', *losses.PENALTIES), 'r1',
        "Penalty on the gradient of the discriminator's output with respect to "
        'its input.',
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
        "Factor of the KL divergence in the loss of a VAE, or of a VAE-GAN's "
        'encoder.',
        only_with=_OF_AUTOENCODERS),
    Key('loss.gamma', NOT_NEGATIVE, 0.01,
        "In the loss of a VAE-GAN's decoder, factor of the distance between an "
        "image and its reconstruction in the discriminator's features.",
        only_with={'variant': ('vae_gan',)}),
    Key('loss.likelihood', choice(*LIKELIHOODS), 'bernoulli',
        "Likelihood of an image, given the output of a VAE's decoder.",
        only_with={'variant': ('vae',)}),
    Key('loss.noise', POSITIVE, 0.1,
        'Standard deviation of a pixel, whose values are in [−1, 1].',
        only_with={'variant': ('vae',), 'loss.likelihood': ('gaussian',)}),
    Key('loss.l1_weight', NOT_NEGATIVE, 100.0,
        'Factor of the mean absolute difference between image and target in '
        'the loss of the generator.', only_with={'variant': ('pix2pix',)}),
    Key('loss.cycle_weight', NOT_NEGATIVE, 10.0,
        'In the loss of the generators, factor of the mean absolute difference '
        'between an image and what both generators in turn make of it.',
        only_with={'variant': ('cyclegan',)}),
    Key('loss.augment', choice(*augmentation.AUGMENTATIONS), 'none',
        'Random changes of all images that the discriminator sees, for data '
        'sets of few images (see [variants](variants.md#few-images)).',
        only_with={'variant': ('gan',)}),
    Key('loss.augment_target', SHARE, augmentation.TARGET,
        "Mean sign of the discriminator's logits of real images that `ada` "
        'aims at.',
        only_with={'loss.augment': ('ada',)}),
    Key('loss.augment_images', POSITIVE, augmentation.IMAGES,
        'Number of images in which the probability of `ada` can go from 0 to '
        '1.',
        only_with={'loss.augment': ('ada',)}),
  )),
  Group('Networks', (
      'A name without a prefix stands for all networks; '
      + ', '.join(
        f'`{prefix}_…` for the {name} alone'
        for name, prefix in NETWORKS.items()
      ) + '.'),
  (
    Key('discriminator.spectral_norm', FLAG, False,
        "Whether the discriminator's weights are divided by their largest "
        'singular value.', is_attribute=True),
    Key('model.attention', FLAG, False,
        'Whether the networks have self-attention, which of the families '
        'only `resnet` offers.',
        name='attention'),
    Key('generator.latent_dim', whole(1, models.LIMITS['latent_dim']), 64,
        'Length of the latent vector that an image is drawn from.',
        only_with=_OF_LATENTS),
    Key('generator.dropout', DECAY, 0.5,
        'Share of the features of its small maps that a `unet` drops at random '
        'in training.', name='dropout', is_attribute=True),
    *SHARED,
    *_of_networks(),
    Key('discriminator.steps', whole(1), 1,
        'Updates of the discriminator for each update of the generator.',
        name='d_steps', only_with={'variant': ('gan', 'pix2pix', 'cyclegan')}),
  )),
  Group('Training', '', (
    Key('ema.decay', DECAY, 0.999,
        "Decay of the generator's moving average. Images are drawn from this "
        'average, and it is scored and packed.', name='ema'),
    Key('learning_rate_decay', choice(*optimizers.DECAYS), 'none',
        'How the learning rates of all networks fall to 0 over all steps; with '
        '`none` they stay constant.'),
    Key('steps', whole(1), 16_000, 'Training steps.'),
    Key('batch_size', whole(1), 32, 'Images in a batch, over all devices.'),
    Key('dtype', choice('float32', 'bfloat16'), 'float32',
        'Type of number that layers compute in; parameters are float32.'),
    Key('steps_per_call', whole(1), None,
        'Steps that a device takes in one call. Their number has to divide '
        '`steps` and the steps between logs, samples, scores, checkpoints and '
        'measurements of quantization.',
        unset='on an accelerator as many as do so, up to 20; 1 on a CPU'),
    Key('seed', whole(0, 2**32 - 1), 0,
        'Seed of the initial weights, the order of the data, latents and '
        'noise.'),
    Key('init_from', PATH, None,
        'Folder of a finished run; training starts from its networks.',
        unset='networks at random'),
  )),
  Group('Logs and checkpoints', '', (
    Key('logging.log_every', whole(1), 100, 'Steps between lines of metrics.'),
    Key('logging.sample_every', whole(1), None,
        'Steps between grids of samples.',
        follows='a twentieth of `steps`, rounded down to hundreds, and at '
        'least 100'),
    Key('logging.eval_every', whole(1), 1000,
        'Steps between quick scores, which choose the best checkpoint.'),
    Key('logging.checkpoint_every', whole(1), 1000,
        'Steps between checkpoints.'),
    Key('logging.eval_samples', whole(2), 2000,
        'Images drawn for a quick score.', name=''),
    Key('logging.tracker', choice('none', 'wandb'), 'none',
        'Where metrics go in addition to `metrics.jsonl` and TensorBoard; '
        '`wandb` is Weights & Biases: see [report](report.md#other-trackers).'),
    Key('logging.diagnose', FLAG, True,
        'Whether the effect of quantization on every tensor is measured at the '
        'end of the run.'),
    Key('logging.diagnose_every', whole(1), None,
        'Steps between further such measurements during training.',
        unset='the end alone'),
  )),
  Group('Scores', '', (
    Key('scores.samples', whole(10), 10_000,
        'Images drawn for the scores at the end.', name=''),
    Key('scores.extractor', choice('classifier', 'inception'), 'classifier',
        'Network that computes the features in which images are compared.'),
    Key('scores.inception_weights', PATH, None,
        'File with the pt_inception-2015-12-05 weights.',
        unset='no Inception network', name='',
        only_with={'scores.extractor': ('inception',)}),
  )),
)
# fmt: on
KEYS = {key.path: key for group in GROUPS for key in group.keys}
SHORT_NAMES = {key.short: path for path, key in KEYS.items() if key.short}
# Keys that only set other keys. A resolved config no longer has them.
BROADER = {SHORT_NAMES[name] for key in KEYS.values() for name in key.broader}

# For runs of earlier versions: keys that no longer exist, with the value that
# they had by default. `RENAMED` has the present names of other keys.
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
