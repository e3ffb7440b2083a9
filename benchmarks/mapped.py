"""A data set in memory against the same one mapped from files.

  python benchmarks/mapped.py --out=benchmarks/results

Makes an archive of pictures, loads it in both ways, and trains the default
networks on both in turn. 'Cold' are mapped files none of which the operating
system has in memory, as in the first epoch of a set that is larger than that.
Times of loading: into memory; into files, the first time; from these files.
"""

import argparse
import io
import os
from pathlib import Path
import statistics
import tempfile
import time
from typing import Any
import zipfile

import contestants
from measuring import (
  foreign_share,
  save,
  say,
  say_whether_comparable,
  start_record,
)
import numpy as np
from PIL import Image
from rich.table import Table

from qgan_jax import data
from qgan_jax.training.allocator import keep_freed_memory

PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'pillow')


def make_archive(path: Path, number: int, size: int) -> None:
  """Pictures of soft parts, as JPEGs, which compress as photographs do."""
  rng = np.random.default_rng(0)
  with zipfile.ZipFile(path, 'w') as archive:
    for i in range(number):
      small = rng.integers(0, 256, (8, 8, 3), np.uint8)
      picture = Image.fromarray(small).resize(
        (size, size), Image.Resampling.BICUBIC
      )
      file = io.BytesIO()
      picture.save(file, 'JPEG')
      archive.writestr(f'{i}.jpg', file.getvalue())


def evict(folder: Path) -> None:
  """Drops files from the operating system's memory; none may be in use."""
  for path in folder.rglob('*.npy'):
    with path.open('rb') as file:
      os.fsync(file.fileno())
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(record: dict[str, Any], name: str, **options: Any) -> Any:
  """Loads the data set, and records the seconds."""
  start = time.perf_counter()
  found = data.load(**options)
  record[name] = time.perf_counter() - start
  say(f'{name}: {record[name]:.1f} s')
  return found


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--pictures', type=int, default=20_000)
  parser.add_argument('--size', type=int, default=64)
  parser.add_argument('--channels', type=int, default=32, help='of networks')
  parser.add_argument('--steps', type=int, default=20, help='of a turn')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--out', type=Path, help='folder of the record')
  args = parser.parse_args()
  keep_freed_memory()
  record = start_record(
    PACKAGES,
    pictures=args.pictures,
    image_size=args.size,
    channels=args.channels,
    batch_size=contestants.BATCH_SIZE,
  )
  with tempfile.TemporaryDirectory() as folder, foreign_share(record):
    os.environ['QGAN_JAX_CACHE'] = folder
    archive = Path(folder, 'pictures.zip')
    make_archive(archive, args.pictures, args.size)
    options = {'source': f'folder:{archive}', 'image_size': args.size}
    loading = record['loading_s'] = {}
    datasets = {
      'in memory': timed(loading, 'into memory', **options),
      'mapped': timed(loading, 'into files', **options, memory=0),
    }
    evict(Path(folder))
    datasets['cold'] = timed(loading, 'from files', **options, memory=0)
    ours = {
      name: contestants.Ours(dataset, args.channels, 32, 'float32')
      for name, dataset in datasets.items()
    }
    evict(Path(folder))
    costs = {'cold': [ours.pop('cold').data_cost(args.steps)]}
    for _ in range(args.rounds):
      for name, step in ours.items():
        costs.setdefault(name, []).append(step.data_cost(args.steps))
  table = Table('', 'step, ms', 'batch, ms', 'of a step', 'device waits')
  record['data'] = {
    name: {key: statistics.median(x[key] for x in found) for key in found[0]}
    for name, found in costs.items()
  }
  for name, cost in record['data'].items():
    table.add_row(
      name,
      f'{cost["step_ms"]:.1f}',
      f'{cost["host_ms"]:.2f}',
      f'{cost["host_share"]:.2%}',
      f'{cost["exposed_share"]:.2%}',
    )
  say(table)
  say_whether_comparable(record)
  save(record, args.out, 'mapped')


if __name__ == '__main__':
  main()
