"""What a run's summary says of its artifact."""

from pathlib import Path

import flax.linen as nn
import pytest

from qgan_jax.models.dcgan import Generator
from qgan_jax.runs.deliver import how_to_draw


class Own(nn.Module):
  features: int = 3


class WithFunction(nn.Module):
  activation: object = nn.relu


class Local:
  class Inner(nn.Module):
    pass


def local():
  class Here(nn.Module):
    pass

  return Here()


@pytest.mark.parametrize(
  ('module', 'said'),
  [
    (Generator(), 'python -m qgan_jax.sample --artifact=a/g.qgan --num=64'),
    (Own(), f'qgan_jax.sample --module={__name__} --artifact=a/g.qgan'),
    (Local.Inner(), f'qgan_jax.sample --module={__name__} --artifact='),
    # A class or an attribute that a command cannot make again.
    (local(), "qgan_jax.load('a/g.qgan', module=…)"),
    (WithFunction(nn.gelu), "qgan_jax.load('a/g.qgan', module=…)"),
  ],
)
def test_how_to_draw_from_it(module, said):
  line = how_to_draw(module, Path('a/g.qgan'))
  assert said in line
  assert line.startswith('\n  draw from it: ')
