"""Draws images from a file into a picture, an array file or a folder."""

from collections.abc import Callable, Iterator
import contextlib
from contextlib import AbstractContextManager
import itertools
import os
from pathlib import Path
import time
from typing import Protocol
import zipfile

import numpy as np
import tqdm

from qgan_jax.artifacts import grids
from qgan_jax.artifacts.drawer import (
  BATCH,
  batches,
  Drawer,
  Fitting,
  label_of,
  made_of,
)
from qgan_jax.artifacts.drawing import open_drawer, TIME_LIMIT
from qgan_jax.artifacts.files import replacing
from qgan_jax.errors import UserError

# Pillow warns when it opens a picture of more than 89 million pixels.
MAX_GRID_PIXELS = 2**26


Read = Callable[
  [tuple[int, ...], Fitting], Iterator[tuple[tuple[str, ...], np.ndarray]]
]


class Sink(Protocol):
  """Takes batches of images, in order."""

  def __call__(self, images: np.ndarray, labels: np.ndarray | None) -> None:
    """Takes images, uint8 [B, H, W, C], and labels, int32 [B], or None."""


@contextlib.contextmanager
def _grid(path: Path, shape: tuple[int, ...]) -> Iterator[Sink]:
  height, width = grids.grid_shape(*shape[:3])
  if height * width > MAX_GRID_PIXELS:
    raise UserError(
      f'--num={shape[0]} makes a picture of {width}×{height} pixels: give '
      '--out a folder (…/) or an .npz file'
    )
  parts: list[np.ndarray] = []
  yield lambda images, labels: parts.append(images)
  grids.save_grid(path, np.concatenate(parts))


def _make_empty(path: Path) -> None:
  """Makes a folder; one that is there has to be empty."""
  try:
    path.mkdir(parents=True, exist_ok=True)
    occupied = any(path.iterdir())
  except OSError as error:
    raise UserError(
      f'--out={path}/ cannot be a folder: {error.strerror}; name another'
    ) from error
  if occupied:
    raise UserError(f'--out={path}/ has files in it: name a new folder')


@contextlib.contextmanager
def _folder(path: Path, shape: tuple[int, ...]) -> Iterator[Sink]:
  _make_empty(path)
  digits = len(str(shape[0] - 1))
  numbers = itertools.count()

  def write(images: np.ndarray, labels: np.ndarray | None) -> None:
    del labels
    for image in images:
      with replacing(path / f'{next(numbers):0{digits}}.png') as file:
        grids.save_png(file, image)

  yield write


@contextlib.contextmanager
def _npz(path: Path, shape: tuple[int, ...]) -> Iterator[Sink]:
  """What `np.savez_compressed` writes, a batch at a time."""
  parts: list[np.ndarray] = []
  with replacing(path) as file, zipfile.ZipFile(file, 'w') as archive:
    with archive.open(_entry('images'), 'w', force_zip64=True) as entry:
      np.lib.format.write_array_header_1_0(
        entry, {'descr': '|u1', 'fortran_order': False, 'shape': shape}
      )

      def write(images: np.ndarray, labels: np.ndarray | None) -> None:
        entry.write(grids.straight(images).tobytes())
        if labels is not None:
          parts.append(labels)

      yield write
    if parts:
      with archive.open(_entry('labels'), 'w') as entry:
        np.lib.format.write_array(entry, np.concatenate(parts))


def _entry(name: str) -> zipfile.ZipInfo:
  # ZipInfo's date is the same for all: the same images make the same bytes.
  entry = zipfile.ZipInfo(f'{name}.npy')
  entry.compress_type = zipfile.ZIP_DEFLATED
  return entry


def _open(out: str, shape: tuple[int, ...]) -> AbstractContextManager[Sink]:
  """The place that `--out` names, for images of `shape` [N, H, W, C]."""
  path = Path(out)
  if out.endswith('/') or path.is_dir():
    return _folder(path, shape)
  if path.suffix not in _FILES:
    raise UserError(f'--out={out}: ….png, ….npz or a folder …/')
  if not path.parent.is_dir():
    raise UserError(
      f'--out={out}: there is no folder {path.parent}: make it, or name another'
    )
  return _FILES[path.suffix](path, shape)


# What `--out` names that is no folder.
_FILES = {'.png': _grid, '.npz': _npz}


def sample(
  *,
  artifact: str,
  num: int,
  out: str,
  seed: int,
  label: str | None,
  runtime: str | None = None,
  seconds: float = TIME_LIMIT,
) -> None:
  """Draws images into a file or a folder, and prints a summary.

  Args:
    artifact: path of a .qgan, .onnx, .tflite or .stablehlo file.
    num: number of images.
    out: ….png, ….npz or a folder …/; `qgan_jax.sample` describes the content of
      each.
    seed: of the latents.
    label: the class of all images, by its name or its number, or None.
    runtime: runtime to draw with, or None for the fastest.
    seconds: time limit of a program for one batch; see `open_drawer`.

  Raises:
    UserError: an argument is not possible, or a file cannot be read or written.
  """
  if num <= 0:
    raise UserError(f'--num={num}: give 1 or more')
  if not 0 <= seed < 2**32:
    raise UserError(f'--seed={seed}: give 0 to {2**32 - 1}')
  drawer = open_drawer(artifact, runtime, seconds=seconds)
  if drawer.input_shape is not None:
    raise UserError(
      f'{artifact} makes images of images: give --images=FOLDER, or an archive '
      'of them'
    )
  number = None if label is None else label_of(drawer, label)
  # The first batch compiles, and says how large the images are.
  ((first, _),) = batches(drawer, num=1, seed=seed, label=number)
  with _open(out, (num, *first.shape[1:])) as write:
    start = time.perf_counter()
    with tqdm.tqdm(total=num, unit='image', leave=False, disable=None) as bar:
      for images, labels in batches(drawer, num=num, seed=seed, label=number):
        write(images, labels)
        bar.update(len(images))
  _tell(artifact, drawer, num, out, time.perf_counter() - start)


def translate(
  *,
  artifact: str,
  read: Read,
  out: str,
  runtime: str | None = None,
  seconds: float = TIME_LIMIT,
) -> None:
  """Makes an image of every picture in a folder, and prints a summary.

  Args:
    artifact: path of a .qgan, .onnx, .tflite or .stablehlo file.
    read: (shape of an image that the artifact takes, how pictures are fitted to
      it) → for all pictures, (path inside their folder, uint8 of that shape).
    out: a folder, in which each image gets the name of its picture, as PNG.
    runtime: runtime to draw with, or None for the fastest.
    seconds: time limit of a program for one batch; see `open_drawer`.

  Raises:
    UserError: the artifact draws from latents, or a file cannot be read or
      written.
  """
  if Path(out).suffix in _FILES:
    raise UserError(
      f'--out={out}: images that are made of pictures are called like these, '
      'so give a folder …/'
    )
  drawer = open_drawer(artifact, runtime, seconds=seconds)
  if drawer.input_shape is None:
    raise UserError(
      f'{artifact} draws from latents, and not of images: leave --images out'
    )
  pictures = read(drawer.input_shape, drawer.fitting)
  # Read before a folder is made: there may be none.
  part = list(itertools.islice(pictures, BATCH))
  folder, written = Path(out), 0
  _make_empty(folder)
  start = time.perf_counter()
  with tqdm.tqdm(unit='image', leave=False, disable=None) as bar:
    while part:
      made = made_of(drawer, np.stack([pixels for _, pixels in part]))
      for (parts, _), image in zip(part, made, strict=True):
        path = folder.joinpath(*parts).with_suffix('.png')
        if path.exists():
          raise UserError(
            f'{"/".join(parts)} and another picture have the same name but for '
            'the extension: give them others'
          )
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
          grids.save_png(file, image)
      written += len(part)
      bar.update(len(part))
      part = list(itertools.islice(pictures, BATCH))
  _tell(artifact, drawer, written, out, time.perf_counter() - start)


def _tell(
  artifact: str, drawer: Drawer, num: int, out: str, seconds: float
) -> None:
  print(f'wrote {num} images to {out} ({num / seconds:.0f} images/s)')
  print(
    f'from {artifact}: {os.path.getsize(artifact):,} bytes, '
    f'{drawer.description}, in {drawer.runtime}'
  )
