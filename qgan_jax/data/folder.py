"""A user's own pictures, in a folder or in an archive."""

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import PurePath

from absl import logging
import numpy as np

from qgan_jax.data import images
from qgan_jax.data.dataset import hold_out_by_content, ImageDataset
from qgan_jax.data.layout import Layout, layout_of
from qgan_jax.data.pairs import find_pairs, match_domains
from qgan_jax.data.reading import options_of, Picture, readable
from qgan_jax.errors import UserError

# Of a digest: two of a million pictures have the same in one of 37 million such
# sets.
_DIGITS = 16
_WHOLE_DIGEST = 64


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
) -> ImageDataset:
  """Loads every picture in a folder or an archive, whatever it is like.

  Pictures are turned as their EXIF data says, then treated by
  `images.to_array`. Their folders say what `layout.layout_of` reads from them.
  Where that is no split, about a tenth is held out by
  `dataset.hold_out_by_content`. Neither where the pictures lie nor, without
  groups, what their files are called changes anything, order included.

  Args:
    path: The folder, .zip or .tar; `~` is expanded, hidden files and folders
      are skipped.
    image_size: Height and width of the result, in pixels, or one number.
    channels: 1, 3 or 4 (RGBA, colours multiplied by alpha); None means the
      most that an image needs: 1 if it is grey, 4 if some of it is transparent.
    group: What stays together when a part is held out: `'content'`, the same
      file, or `'name'`, all that have the same file name but for its extension.
    fit: How an image gets that size, see `images.to_array`.
    pixel_art: Whether images are scaled as such; None means that half of those
      to be scaled, or more, have at most 64 colours.
    pairs: Two folders, `'A/B'`, whose pictures of the same name are an input
      and its target; see `pairs.find_pairs`. They are then no classes, and a
      pair is held out by its input. None for pictures by themselves.
    domains: Two folders, `'A/B'`, whose pictures are inputs and targets that
      have nothing to do with each other; see `pairs.match_domains`. A part of
      each folder is held out as if it were a class.

  Returns:
    The data set, named `'pictures-<digest>'`: the digest is of the images'
    files, their classes and their split.

  Raises:
    UserError: There is no such path, or fewer than two images can be read.
  """
  to_array = functools.partial(
    images.to_array,
    image_size=image_size,
    channels=channels,
    fit=fit,
    pixel_art=bool(pixel_art),
  )
  good = readable(path, to_array)
  options = options_of(path, good, pixel_art)
  if options:
    # What all of them are like decides how each is read.
    good = readable(path, functools.partial(to_array, **options))
  layout = layout_of([picture.parts for picture in good])
  if pairs is not None:
    good, layout = _joined(good, layout, find_pairs(layout, pairs))
  elif domains is not None:
    parts = layout.splits or tuple(
      'test' if held_out else 'train'
      for held_out in _held_out(good, layout, group)
    )
    found = match_domains(layout, domains, parts)
    good, layout = _joined(good, layout._replace(splits=parts), found)
  held_out = _held_out(good, layout, group)
  if held_out.all() or not held_out.any():
    raise UserError(
      f'The images in {path!r} are all alike, or of one group: one '
      'part is to be held out, and one to train on; add others.'
    )
  dataset = _dataset(good, layout, held_out)
  return dataclasses.replace(
    dataset,
    input_channels=dataset.train_images.shape[-1] // 2
    if pairs or domains
    else 0,
    is_unpaired=domains is not None,
    pixel_art=bool(options.get('pixel_art', pixel_art)),
  )


def _joined(
  pictures: list[Picture], layout: Layout, found: list[tuple[int, int]]
) -> tuple[list[Picture], Layout]:
  """An input and a target as one picture, with both digests; their layout."""
  depth = max(_channels(pictures[i]) for pair in found for i in pair)
  joined = []
  for pair in found:
    both = [pictures[i] for i in pair]
    pixels = [
      images.with_channels(p.pixels, depth)
      for p in both
      if p.pixels is not None
    ]
    digest = ''.join(p.digest for p in both)
    joined.append(
      both[0]._replace(pixels=np.concatenate(pixels, -1), digest=digest)
    )
  splits = layout.splits and tuple(layout.splits[i] for i, _ in found)
  return joined, Layout(splits, None, ())


def _channels(picture: Picture) -> int:
  return 0 if picture.pixels is None else picture.pixels.shape[-1]


def _held_out(
  pictures: list[Picture], layout: Layout, group: str
) -> np.ndarray:
  """Whether each picture is held out, bool `[N]`."""
  if layout.splits is not None:
    return np.array([split == 'test' for split in layout.splits])
  keys = [
    PurePath(picture.parts[-1]).stem
    if group == 'name'
    else picture.digest[:_WHOLE_DIGEST]
    for picture in pictures
  ]
  return hold_out_by_content([os.fsencode(key) for key in keys], layout.labels)


def _dataset(
  pictures: list[Picture], layout: Layout, held_out: np.ndarray
) -> ImageDataset:
  """The data set, named by its content."""
  used = np.ones(len(pictures), bool)
  if layout.splits is not None:
    used = np.array([split != 'unused' for split in layout.splits])
  if not used.all():
    logging.warning(
      '%d image(s) for validation are left out, as there are others for tests',
      np.count_nonzero(~used),
    )
  arrays = [p.pixels for p in pictures if p.pixels is not None]
  depth = max(array.shape[-1] for array in arrays)
  pixels = np.stack([images.with_channels(array, depth) for array in arrays])
  labels = layout.labels
  classes = [''] * len(pictures)
  if labels is not None:
    classes = [layout.class_names[label] for label in labels]
  # Names may hold anything, so that they are parted by their JSON.
  content = sorted(
    (bool(held_out[i]), classes[i], pictures[i].digest)
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
  return ImageDataset(
    name=f'pictures-{digest.hexdigest()[:12]}',
    train_images=pixels[train],
    train_labels=None if labels is None else labels[train],
    test_images=pixels[test],
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
