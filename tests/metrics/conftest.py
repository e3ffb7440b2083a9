"""What the tests of scores share."""

import importlib
import sys
from unittest import mock

import pytest


@pytest.fixture
def torch_fidelity(monkeypatch):
  """Imports a module of torch-fidelity by name.

  Its package imports torchvision, which its functions of features do not use
  and which does not come with every build of PyTorch: an empty one will do.
  """
  pytest.importorskip('torch')
  for name in ('', '.datasets', '.transforms', '.transforms.functional'):
    monkeypatch.setitem(sys.modules, f'torchvision{name}', mock.MagicMock())
  pytest.importorskip('torch_fidelity')
  return lambda name: importlib.import_module(f'torch_fidelity.{name}')
