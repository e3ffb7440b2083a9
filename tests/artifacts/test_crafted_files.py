"""Files that name a class import nothing, and make only networks."""

import sys
import types
from typing import Any

from own_modules import make_attending
import pytest
from test_packed import rewrite

from qgan_jax import artifacts
from qgan_jax.errors import UserError

OWN = 'own_modules'


@pytest.fixture(scope='module')
def attending():
  return make_attending()


@pytest.fixture
def crafted(tmp_path, attending):
  """The path of a file that names a class; (model, kwargs) → path."""
  path = tmp_path / 'crafted.qgan'

  def craft(model: Any, kwargs: Any = None):
    artifacts.save(path, attending)
    rewrite(
      path,
      lambda header, tensors: header.update(
        model=model, model_kwargs={} if kwargs is None else kwargs
      ),
    )
    return path

  return craft


def test_a_file_imports_nothing(crafted, tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'not_imported.py').write_text(
    f'open({str(tmp_path / "imported")!r}, "w")\nclass G: pass\n'
  )
  # A package that imports what it is asked for, as ours does.
  lazy = types.ModuleType('lazy')
  lazy.__getattr__ = lambda name: __import__('not_imported').G

  class Lazier(types.ModuleType):
    def __getattribute__(self, name):
      return __import__('not_imported')

  monkeypatch.setitem(sys.modules, 'lazy', lazy)
  monkeypatch.setitem(sys.modules, 'lazier', Lazier('lazier'))
  monkeypatch.setitem(sys.modules, 'none', None)
  for model in ('not_imported:G', 'lazy:G', 'lazier:G', 'none:G', 'lazy:G.G'):
    with pytest.raises(UserError, match='import .* first .*or give the'):
      artifacts.load(crafted(model))
  assert not (tmp_path / 'imported').exists()
  assert 'not_imported' not in sys.modules


@pytest.mark.parametrize(
  ('model', 'kwargs'),
  [
    ('os:system', {'command': 'false'}),
    ('builtins:eval', {}),
    ('subprocess:Popen', {'args': ['false']}),
    ('jax:jit', {}),
    ('flax.linen:Module.apply', {}),
    # A class that is not where it says it is; a module in a module.
    ('flax.linen:Dense', {'features': 3}),
    (f'{OWN}:nn.Dense', {'features': 3}),
    (f'{OWN}:', {}),
    (OWN, {}),
    (':', {}),
    ('', {}),
    (f'{OWN}:Outer', {}),
    (f'{OWN}:LATENTS', {}),
  ],
)
def test_only_classes_of_networks_are_made(crafted, model, kwargs, monkeypatch):
  called = []
  monkeypatch.setattr('os.system', lambda *args, **kw: called.append(args))
  with pytest.raises(UserError, match='which is not here: import'):
    artifacts.load(crafted(model, kwargs))
  assert not called


@pytest.mark.parametrize(
  ('model', 'kwargs'),
  [
    (3, {}),
    (None, {}),
    (['a:b'], {}),
    (f'{OWN}:Attending', {'wide': 1}),
    (f'{OWN}:Attending', {'size': 10**30}),
    (f'{OWN}:Attending', {'widths': [8, [10**30]]}),
    (f'{OWN}:Attending', {'widths': {'a': 1}}),
    (f'{OWN}:Attending', {'size': 'x'}),
    (f'{OWN}:Attending', {'size': 5}),
    (f'{OWN}:Attending', [1]),
    ('flax.linen.linear:Dense', {'features': 3}),
  ],
)
def test_wrong_attributes_are_user_errors(crafted, model, kwargs):
  with pytest.raises(UserError, match='does not fit together'):
    artifacts.load(crafted(model, kwargs))


@pytest.mark.parametrize(
  'inputs',
  [
    [], None, 3, [[[5], 'object']], [[[10**30], 'float32']],
    [[[-5], 'float32']], [[[5.0], 'float32']], [[5, 'float32']],
    [[[5], 'float32']] * 99, [[[4], 'float32']], [[[5], 'float64']],
    [[[5], 'float32'], [[], 'int32']], [[[True], 'float32']],
  ],
  ids=str,
)  # fmt: skip
def test_wrong_inputs_are_user_errors(tmp_path, attending, inputs):
  path = tmp_path / 'g.qgan'
  artifacts.save(path, attending)
  rewrite(path, lambda header, tensors: header.update(inputs=inputs))
  with pytest.raises(UserError, match='does not fit together'):
    artifacts.load(path)
