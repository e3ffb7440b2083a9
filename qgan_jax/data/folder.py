"""Loads a user's own pictures from a folder or an archive."""

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import json
import math
import os
from pathlib import PurePath

from absl import logging
import numpy as np
import PIL

from qgan_jax.data import images, mapped, reading
from qgan_jax.data.dataset import hold_out_by_content, ImageDataset
from qgan_jax.data.layout import Layout, layout_of
from qgan_jax.data.pairs import find_pairs, match_domains
from qgan_jax.data.reading import Picture
from qgan_jax.errors import UserError

# Of a digest: two of a million pictures have the same in one of 37 million such
# sets.
_DIGITS = 16
_WHOLE_DIGEST = 64
# Increase it where pixels or files of `mapped` change: old ones are then not
# used.
_FORMAT = 2

# One picture, or a pair of them.
Example = tuple[Picture, ...]


def load(
  path: str,
  *,
  image_size: int | images.Size,
  channels: int | None = None,
  group: str = 'content',
  fit: str = 'crop',
  pixel_art: bool | None = None,
  pairs: str | None = None,
  domains: str | None = None,
  memory: int | None = None,
) -> ImageDataset:
  """Loads all pictures of a folder or an archive, in any layout.

  Pictures are turned as their EXIF data says, and then fitted by
  `images.to_array`. Classes and split are read from the folders by
  `layout.layout_of`. If the folders give no split, about a tenth is held out by
  `dataset.hold_out_by_content`. The result, order included, does not depend on
  where the pictures are stored, nor, without groups, on the names of their
  files.

  Args:
    path: The folder, .zip or .tar; `~` is expanded, hidden files and folders
      are skipped.
    image_size: Height and width of the result, in pixels, or one number.
    channels: 1, 3 or 4 (RGBA, colours multiplied by alpha); None means the most
      that an image needs: 1 if it is grey, 4 if some of it is transparent.
    group: What stays together when a part is held out: `'content'`, equal
      files, or `'name'`, files of the same name apart from the extension.
    fit: How an image is fitted into that size, see `images.to_array`.
    pixel_art: Whether images are scaled as pixel art. None means yes if at
      least half of those to be scaled have at most 64 colours, in both folders
      of `pairs` or `domains`.
    pairs: Two folders, `'A/B'`, whose pictures of the same name are an input
      and its target; see `pairs.find_pairs`. The folders are then not classes,
      and a pair is held out by its input. None for single pictures.
    domains: Two folders, `'A/B'`, whose pictures are inputs and targets without
      being pairs; see `pairs.match_domains`. A part of each folder is held out,
      as if it were a class.
    memory: Bytes that decoded pictures may take. If they might take more,
      arrays are mapped from files, which later calls use again; see `mapped`.
      None for no limit.

  Returns:
    The data set, named `'pictures-<digest>'`. The digest is of the images'
    files, their classes and their split.

  Raises:
    UserError: There is no such path, or fewer than two images can be read.
  """
  size = images.size_of(image_size)
  decode = functools.partial(
    _decode,
    path,
    image_size=size,
    channels=channels,
    group=group,
    fit=fit,
    pixel_art=pixel_art,
    pairs=pairs,
    domains=domains,
  )
  if memory is None:
    return decode(None)
  most = math.prod(size) * (channels or 4)
  decoded = reading.count(path) * most
  if domains is not None:
    decoded *= 2  # Those of the smaller domain are there again and again.
  if decoded <= memory:
    return decode(None)
  expected = reading.digests(path)
  # Another version of Pillow may decode otherwise.
  about = [_FORMAT, PIL.__version__, expected, decode.keywords]
  key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
  return mapped.load_or_make(
    key[:_DIGITS], decode, expected=expected, most=most, decoded=decoded
  )


def _decode(
  path: str,
  files: mapped.Files | None,
  *,
  image_size: images.Size,
  channels: int | None,
  group: str,
  fit: str,
  pixel_art: bool | None,
  pairs: str | None,
  domains: str | None,
) -> ImageDataset:
  """As `load`, with arrays in files or, without any, in memory."""
  to_array = functools.partial(
    images.to_array,
    image_size=image_size,
    channels=channels,
    fit=fit,
    pixel_art=bool(pixel_art),
  )
  good = reading.readable(path, to_array, files)
  both = pairs or domains
  options = reading.options_of(
    path,
    good,
    channels=channels,
    fit=fit,
    pixel_art=pixel_art,
    folders=both.split('/') if both else (),
  )
  if options:
    # What all of them are like decides how each is read.
    to_array = functools.partial(to_array, **options)
    good = reading.readable(path, to_array, files, warn=False)
  layout = layout_of([picture.parts for picture in good])
  examples: list[Example] = [(picture,) for picture in good]
  if pairs is not None:
    found = find_pairs(layout, pairs)
    examples, layout = _joined(good, layout, found)
  elif domains is not None:
    parts = layout.splits or tuple(
      'test' if held_out else 'train'
      for held_out in _held_out(examples, layout, group)
    )
    found = match_domains(layout, domains, parts)
    examples, layout = _joined(good, layout._replace(splits=parts), found)
  elif layout.splits is None and len(layout.class_names) == len(good):
    logging.warning(
      'each of the %d folders in %r holds one picture, so that they are no '
      'classes',
      len(good),
      path,
    )
    layout = Layout(None, None, ())
  held_out = _held_out(examples, layout, group)
  if held_out.all() or not held_out.any():
    raise UserError(
      f'The images in {path!r} are all alike, or of one group: one '
      'part is to be held out, and one to train on; add others.'
    )
  dataset = _dataset(examples, layout, held_out, files)
  dataset = dataclasses.replace(
    dataset,
    pixel_art=bool(options.get('pixel_art', pixel_art)),
    white=options.get('white', dataset.white),
  )
  if not both:
    return dataset
  return dataclasses.replace(
    dataset,
    input_channels=dataset.train_images.shape[-1] // 2,
    domains=None if domains is None else _sizes(found, held_out),
  )


def _sizes(
  found: list[tuple[int, int]], held_out: np.ndarray
) -> tuple[int, int, int, int]:
  """How many different inputs and targets there are, see `ImageDataset`."""
  both = np.array(found)
  train, test = both[~held_out], both[held_out]
  a, b, c, d = (len({*x}) for part in (train, test) for x in part.T.tolist())
  return a, b, c, d


def _joined(
  pictures: list[Picture], layout: Layout, found: list[tuple[int, int]]
) -> tuple[list[Example], Layout]:
  """Inputs and their targets, whose folders are no classes; their layout."""
  splits = layout.splits and tuple(layout.splits[i] for i, _ in found)
  examples: list[Example] = [(pictures[i], pictures[j]) for i, j in found]
  return examples, Layout(splits, None, ())


def _held_out(
  examples: list[Example], layout: Layout, group: str
) -> np.ndarray:
  """Whether each example is held out, bool `[N]`."""
  if layout.splits is not None:
    return np.array([split == 'test' for split in layout.splits])
  # Of a pair, the input decides.
  firsts = [example[0] for example in examples]
  keys = [
    PurePath(picture.parts[-1]).stem if group == 'name' else picture.digest
    for picture in firsts
  ]
  return hold_out_by_content([os.fsencode(key) for key in keys], layout.labels)


def _dataset(
  examples: list[Example],
  layout: Layout,
  held_out: np.ndarray,
  files: mapped.Files | None,
) -> ImageDataset:
  """The data set, named by its content."""
  used = np.ones(len(examples), bool)
  if layout.splits is not None:
    used = np.array([split != 'unused' for split in layout.splits])
  if not used.all():
    logging.warning(
      '%d image(s) for validation are left out, as there are others for tests',
      np.count_nonzero(~used),
    )
  labels = layout.labels
  classes = [''] * len(examples)
  if labels is not None:
    classes = [layout.class_names[label] for label in labels]
  # Names may hold anything, so that they are parted by their JSON.
  content = sorted(
    (bool(held_out[i]), classes[i], ''.join(p.digest for p in examples[i]))
    for i in np.flatnonzero(used)
  )
  digest = hashlib.sha256(json.dumps([layout.class_names, content]).encode())
  train, test = used & ~held_out, used & held_out
  if labels is not None:
    for label, name in enumerate(layout.class_names):
      if not np.any(labels[train] == label):
        raise UserError(
          f'The class {name!r} has no images to train on; add some, or take '
          'its folder away.'
        )
  train_images, test_images = _stacked(
    examples, {'train_images': train, 'test_images': test}, files
  )
  return ImageDataset(
    name=f'pictures-{digest.hexdigest()[:12]}',
    train_images=train_images,
    train_labels=None if labels is None else labels[train],
    test_images=test_images,
    test_labels=None if labels is None else labels[test],
    num_classes=len(layout.class_names),
    class_names=layout.class_names,
    pictures=tuple(
      sorted(
        digest[start : start + _DIGITS]
        for _, _, digest in content
        for start in range(0, len(digest), _WHOLE_DIGEST)
      )
    ),
  )


def _stacked(
  examples: list[Example],
  parts: Mapping[str, np.ndarray],
  files: mapped.Files | None,
) -> list[np.ndarray]:
  """The pixels of parts of all examples, each as one array `[N, H, W, C]`.

  All have the channels of the example that has most. Those of a pair follow
  each other.
  """
  pixels = [
    [p.pixels for p in example if p.pixels is not None] for example in examples
  ]
  depth = max(x.shape[-1] for arrays in pixels for x in arrays)
  shape = (*pixels[0][0].shape[:2], depth * len(pixels[0]))

  def row(i: int) -> np.ndarray:
    return np.concatenate(
      [images.with_channels(x, depth) for x in pixels[i]], -1
    )

  found = []
  for name, chosen in parts.items():
    rows = np.flatnonzero(chosen).tolist()
    if files is not None:
      found.append(files.stack(name, map(row, rows), (len(rows), *shape)))
      continue
    array = np.empty((len(rows), *shape), np.uint8)
    for place, i in enumerate(rows):
      array[place] = row(i)
    found.append(array)
  return found
