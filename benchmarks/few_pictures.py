"""Trains on few pictures and on more, with and without augmentation.

  python benchmarks/few_pictures.py --dir=pixel-heroes.zip --counts 300 1000 \
      --config=images:steps=1500,bits=32 --out=benchmarks/results

A tenth of the pictures is held out, all of one file name together, and of the
others so many are trained on. All that was trained is compared in the same
features: those of a classifier of the largest set. `data_copying`, with the
training pictures of the run itself, tells how far it has learned them by heart:
1/2 where samples are like new pictures, 1 where they are copies.

One run after another, each a process of its own. A run that is there is not
trained again.
"""

import argparse
import hashlib
import itertools
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

from measuring import save, say, start_record
from rich.table import Table

from qgan_jax.data.picture_files import opened

PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy')
SCORES = ('frechet_distance', 'precision', 'recall', 'coverage', 'data_copying')


def make_folders(source: str, counts: list[int], root: Path) -> list[Path]:
  """Writes folders with `train` of so many pictures, and the same `test`."""
  with opened(source) as files:
    # By a hash of its name: pictures of one name are trained on, or none is.
    found = sorted(
      (hashlib.sha256(file.parts[-1].encode()).digest(), file.parts, file.read)
      for file in files
    )
    names = list(dict.fromkeys(digest for digest, *_ in found))
    held_out = {*names[: len(names) // 10]}
    test = [file for file in found if file[0] in held_out]
    train = [file for file in found if file[0] not in held_out]
    folders = []
    for count in counts:
      if count > len(train):
        sys.exit(f'--counts {count}: there are {len(train)} to train on')
      folders.append(root / f'{count}-pictures')
      for part, chosen in (('train', train[:count]), ('test', test)):
        for _, parts, read in chosen:
          path = folders[-1].joinpath(part, *parts)
          path.parent.mkdir(parents=True, exist_ok=True)
          path.write_bytes(read())
  return folders


def command(module: str, *flags: str) -> str:
  """What a command of the package prints."""
  words = [sys.executable, '-m', f'qgan_jax.{module}', *flags]
  return subprocess.run(words, check=True, stdout=-1, text=True).stdout


def run_case(
  config: str, size: int, augment: str, folder: Path, largest: Path
) -> dict[str, Any]:
  """Trains one run, and scores it."""
  at_size = f'{config},image_size={size}'
  string = f'{at_size},augment={augment}'
  name = f'{folder.name},{string}'.replace('/', '-').replace(':', ',')
  workdir = folder.parent / name
  command(
    'main', f'--config={string}',
    f'--config.data.dir={folder}', f'--workdir={workdir}',
  )  # fmt: skip
  alike = command(
    'evaluate', f'--artifact={workdir}/generator.qgan', f'--config={at_size}',
    f'--config.data.dir={largest}',
  )  # fmt: skip
  nearest = f'--nearest={workdir}/nearest.png'
  own = command('evaluate', f'--workdir={workdir}', nearest)
  copied = json.loads(own)['data_copying']
  scores = json.loads(alike) | {'data_copying': copied}
  del scores['artifact']  # A path of this machine.
  return {
    'pictures': int(folder.name.partition('-')[0]),
    'image_size': size,
    'augment': augment,
    'config': config,
    'scores': scores,
  }


def print_cases(cases: list[dict[str, Any]]) -> None:
  """Prints the cases as one table."""
  table = Table()
  settings = ('config', 'pictures', 'image_size', 'augment')
  for title in (*settings, *SCORES):
    table.add_column(title, justify='left' if title == 'config' else 'right')
  for case in cases:
    scores = [f'{case["scores"][name]:.3f}' for name in SCORES]
    table.add_row(*(str(case[name]) for name in settings), *scores)
  say(table)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--dir', required=True, help='folder, .zip or .tar')
  parser.add_argument('--config', nargs='+', default=['images:steps=1500'])
  parser.add_argument('--counts', type=int, nargs='+', default=[300, 1000])
  parser.add_argument('--sizes', type=int, nargs='+', default=[32])
  parser.add_argument(
    '--augment', nargs='+', default=['none', 'diffaugment', 'ada']
  )
  parser.add_argument('--workdir', type=Path, default='runs/few_pictures')
  parser.add_argument('--out', type=Path, help='folder for a JSON file')
  args = parser.parse_args()
  record = start_record(PACKAGES, pictures=Path(args.dir).name)
  record['cases'] = []
  folders = make_folders(args.dir, args.counts, args.workdir)
  largest = folders[args.counts.index(max(args.counts))]
  for size, folder, config, augment in itertools.product(
    args.sizes, folders, args.config, args.augment
  ):
    case = run_case(config, size, augment, folder, largest)
    record['cases'].append(case)
    print_cases([case])
    save(record, args.out, 'few_pictures')
  print_cases(record['cases'])


if __name__ == '__main__':
  main()
