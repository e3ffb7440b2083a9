"""Loads a data set by the name of its source."""

import dataclasses
from pathlib import Path
import sys
import textwrap
from typing import Any

from absl import logging

from qgan_jax.data import (
  digits,
  folder,
  images,
  mnist_family,
  picture_files,
  tfds,
)
from qgan_jax.data.dataset import ImageDataset
from qgan_jax.data.download import UnavailableError
from qgan_jax.errors import expand_home, UserError


def load(
  source: str,
  *,
  data_dir: str | None = None,
  image_size: int | images.Size,
  channels: int | None = None,
  standin: bool = True,
  download: bool = True,
  group: str = 'content',
  fit: str = 'crop',
  pixel_art: bool | None = None,
  pairs: str | None = None,
  domains: str | None = None,
  memory: int | None = None,
) -> ImageDataset:
  """Loads a data set, into memory if it fits.

  Args:
    source: One of
      a TensorFlow Datasets name (`'mnist'`, `'cifar10:3.0.2'`), prepared in
        `data_dir` as ArrayRecord; MNIST, Fashion-MNIST and KMNIST are also
        read from their original files and downloaded if these are missing;
      `'digits'`, scikit-learn's 1,797 scans, which need no file at all;
      `'folder:PATH'`, a folder of images, or a .zip or .tar of them.
    data_dir: Folder of data sets; None means `$TFDS_DATA_DIR`, else TFDS's own
      default, `~/tensorflow_datasets`.
    image_size: Height and width of the result, in pixels, or one number: images
      are cropped about their centre and resized.
    channels: 1 (grey), 3 (RGB) or 4 (RGBA, colours multiplied by alpha); None
      keeps what the source has.
    standin: Whether `'digits'` may replace a set of the MNIST family that is
      not available. A warning says so, and the result records it.
    download: Whether the network may be used.
    group: For a folder, which pictures stay together when a part is held out:
      `'content'` or `'name'`. For this and the next five, see `folder.load`.
    fit: How pictures of a folder are fitted into that size.
    pixel_art: Whether they are scaled as pixel art; None decides by their
      colours.
    pairs: Which two sub-folders hold inputs and targets, `'A/B'`.
    domains: The same, for inputs and targets that are not pairs.
    memory: Bytes that decoded pictures may take; larger sets are mapped from
      files. None for no limit.

  Returns:
    The data set; its `name` says what was really used.

  Raises:
    UserError: The source is unknown, missing, unreadable or no set of images.
  """
  if min(images.size_of(image_size)) < 1:
    raise UserError(f'The image size is {image_size}; give at least 1 pixel.')
  if channels not in (None, 1, 3, 4):
    raise UserError(
      f'Images cannot have {channels} channels; give 1 (grey), 3 (RGB) or 4 '
      '(RGBA).'
    )
  kind, _, path = source.partition(':')
  if kind == 'folder':
    return folder.load(
      path,
      image_size=image_size,
      channels=channels,
      group=group,
      fit=fit,
      pixel_art=pixel_art,
      pairs=pairs,
      domains=domains,
      memory=memory,
    )
  if source == 'digits':
    return digits.load(image_size=image_size, channels=channels)

  root, prepared = _find(source, data_dir)
  if prepared is not None:
    return tfds.load(prepared, image_size=image_size, channels=channels)
  try:
    return mnist_family.load(
      kind,
      data_dir=root,
      image_size=image_size,
      channels=channels,
      download=download,
    )
  except UnavailableError as error:
    if not standin:
      raise UserError(_ways_out(source, root, why=str(error))) from None
    _warn_of_standin(source, root, why=str(error))
  found = digits.load(image_size=image_size, channels=channels)
  return dataclasses.replace(
    found, name=f'digits (stand-in for {source})', is_standin=True
  )


def check(source: str, *, data_dir: str | None = None) -> None:
  """Checks that a data set is available, without reading or downloading it.

  Args:
    source: As for `load`.
    data_dir: As for `load`.

  Raises:
    UserError: The source is unknown, or does not exist here and cannot be
      downloaded.
  """
  kind, _, path = source.partition(':')
  if kind == 'folder':
    picture_files.check(path)
  elif source != 'digits':
    _find(source, data_dir)


def _find(source: str, data_dir: str | None) -> tuple[Path, Any | None]:
  """The data folder, and TFDS's builder of a set that is prepared there.

  It is None for a set of the MNIST family that is to be read from its original
  files.

  Raises:
    UserError: The set is unknown, or neither prepared nor of that family.
  """
  root = Path(expand_home(data_dir)) if data_dir else tfds.default_data_dir()
  prepared = tfds.find_prepared(source, data_dir=root)
  if prepared is None:
    name = tfds.check_name(source)
    if name not in mnist_family.NAMES:
      raise UserError(_ways_out(source, root, why='it is not prepared there'))
    # The original files are those of one version and have no configurations.
    only = f'{name}:{tfds.version(name)}'
    if source not in (name, only):
      raise UserError(
        f'The data set {source!r} is not prepared in {str(root)!r}, and the '
        f'original files are {only!r}; ask for that or for {name!r}.'
      )
  return root, prepared


def _ways_out(source: str, root: Path, *, why: str) -> str:
  """Returns one line with the three things a person can do."""
  name = source.partition(':')[0]
  files = (
    f'put the four original files ({mnist_family.FILES[0]}.gz, ...) into a '
    'folder and set data.dir to it'
    if name in mnist_family.NAMES
    else "put the original images into a folder and use 'folder:PATH'"
  )
  return (
    f'The data set {source!r} cannot be loaded from {str(root)!r}: {why}. '
    f'Either (1) prepare it where there is TensorFlow, '
    f'`{tfds.prepare_command(name)}`, and set data.dir or TFDS_DATA_DIR to '
    f'DIR; or (2) {files}; or (3) train on the digits that need no file: '
    '--config=digits.'
  )


def _warn_of_standin(source: str, root: Path, *, why: str) -> None:
  """Says in a box on stderr that other images are used."""
  logging.warning('Using digits in place of %s: %s', source, why)
  paragraphs = (
    f'THIS IS NOT {source.upper()}.',
    f'It cannot be loaded from {str(root)!r}: {why}.',
    "scikit-learn's 1,797 digits stand in for it.",
    'To get an error instead, set data.standin to False.',
  )
  lines = [line for p in paragraphs for line in textwrap.wrap(p, width=76)]
  rule = '*' * 80
  box = [rule, *(f'* {line:<76} *' for line in lines), rule]
  print('\n'.join(box), file=sys.stderr)
