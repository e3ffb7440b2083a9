"""The command `qgan`: every command of the package, by its name.

  qgan train --config=digits:bits=8,steps=200
  qgan sample --artifact=generator.qgan --num=64 --out=grid.png

  train       trains an experiment, scores it, packs its generator (or `main`)
  sweep       trains many trials: on this machine, on Ray or on Slurm
  population  trains many trials in one compiled program
  quantize    quantizes a trained run without training it again
  evaluate    scores a run or an artifact again
  export      writes ONNX, StableHLO or a page that draws in a browser
  sample      draws images from an artifact
  preflight   estimates what a run will cost, on chips that you need not have
  report      makes one page about runs: how few bits are enough

`qgan COMMAND --help` describes a command and its flags. `qgan sample` is the
same as `python -m qgan_jax.sample`.
"""

from collections.abc import Sequence
import importlib
import sys
from typing import NoReturn

from qgan_jax import errors

# What is typed → the module; nothing of it is imported before it is needed.
COMMANDS = {
  'train': 'main',
  'main': 'main',
  'sweep': 'sweep',
  'population': 'population',
  'quantize': 'quantize',
  'evaluate': 'evaluate',
  'export': 'export',
  'sample': 'sample',
  'preflight': 'preflight',
  'report': 'report',
}


def main(argv: Sequence[str]) -> int | None:
  """Calls the command that the first argument names with the others."""
  if not argv or argv[0] in ('-h', '-?', '--help'):
    print(__doc__)
    return 0
  name, *rest = argv
  if name not in COMMANDS:
    hint = errors.did_you_mean(name, COMMANDS)
    raise errors.UserError(
      f'qgan {name}: there is no such command; '
      + (hint or f'say one of {", ".join(COMMANDS)}')
    )
  return importlib.import_module(f'qgan_jax.{COMMANDS[name]}').main(rest)


def start() -> NoReturn:
  """Runs `main` as the process's command: what `qgan` is installed as."""
  # `python -m` finds modules in the working folder, an installed command does
  # not: `model=my_networks` shall mean the same to both.
  if not sys.flags.safe_path:
    sys.path.insert(0, '')
  errors.run(main)


if __name__ == '__main__':
  start()
