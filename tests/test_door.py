"""What `import qgan_jax` gives, and what it does not load."""

import importlib.metadata
from pathlib import Path
import subprocess
import sys

import pytest

import qgan_jax

ROOT = Path(__file__).parents[1]


def run(code):
  found = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert found.returncode == 0, found.stderr
  return found.stdout


def test_importing_it_loads_nothing_heavy():
  loaded = run('import sys, qgan_jax; dir(qgan_jax); print(*sys.modules)')
  roots = {name.split('.')[0] for name in loaded.split()}
  assert not roots & {'jax', 'jaxlib', 'flax', 'numpy', 'absl', 'optax'}
  inside = [name for name in loaded.split() if name.startswith('qgan_jax.')]
  assert not inside


def test_all_of_it_is_there():
  assert set(qgan_jax.__all__) <= set(dir(qgan_jax))
  for name in qgan_jax.__all__:
    assert getattr(qgan_jax, name) is not None
  with pytest.raises(AttributeError, match="no attribute 'quantise'"):
    qgan_jax.quantise  # noqa: B018
  assert (ROOT / 'qgan_jax/py.typed').exists()


def test_the_version_is_that_of_the_package():
  assert qgan_jax.__version__ == importlib.metadata.version('qgan_jax')


CALL = """
import flax.linen as nn, jax, jax.numpy as jnp
module = nn.Dense(3)
variables = module.init(jax.random.key(0), jnp.ones((1, 4)))
network = qgan_jax.quantize((module, variables), bit_width=4)
assert type(network).__name__ == 'Quantized'
"""


@pytest.mark.parametrize(
  'imports',
  [
    'import qgan_jax',
    'import qgan_jax; qgan_jax.quantize; import qgan_jax.quantize',
    'import qgan_jax.quantize, qgan_jax',
    'import qgan_jax; from qgan_jax import quantize; import qgan_jax.main',
    'import qgan_jax, qgan_jax.quantize; from qgan_jax.quantize import quantize'
    '; qgan_jax.quantize.main',
  ],
)
def test_quantize_is_a_command_and_a_function_in_any_order(imports):
  run(f'{imports}{CALL}')
