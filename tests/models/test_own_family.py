"""`model=my_package.networks`: a family that lies outside of the package."""

from dataclasses import replace
import importlib
import json

import numpy as np
import pytest
import tiny_run

from qgan_jax import config as config_lib
from qgan_jax.errors import UserError
from qgan_jax.runs import build
from qgan_jax.runs.folder import identity, read_run


def test_a_module_of_ones_own_is_a_family():
  setup = build.set_up(
    tiny_run.make_config('model=own_networks,bits=4'), tiny_run.make_dataset()
  )
  layers = {(c.network, c.layer, c.role): c.bits for c in setup.table}
  assert layers['generator', 'Dense_1', 'weights'] == 4
  assert layers['discriminator', 'Dense_0', 'activations'] == 8  # Images.
  # Given are those attributes that its classes have.
  module = setup.networks['generator'].module
  assert (module.image_size, module.image_channels) == (8, 1)
  shapes = setup.state_shapes().networks['generator'].params
  assert shapes['Dense_1']['kernel'].shape == (16, 64)
  images = setup.sampler()(setup.init_state(), 4)
  assert images.shape == (4, 8, 8, 1)
  assert len(np.unique(images)) > 10


def test_images_of_another_size_than_the_datas_are_refused():
  config = tiny_run.make_config('model=own_networks')
  dataset = tiny_run.make_dataset()
  variant = build.make_variant(config, dataset)
  larger = variant.modules['generator'].clone(image_size=12)
  modules = {**variant.modules, 'generator': larger}
  with pytest.raises(UserError, match='draws images of 12×12×1, and.*8×8×1'):
    build.set_up(config, dataset, variant=replace(variant, modules=modules))


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('dcgn', 'no module of that name .* did you mean .dcgan'),
    ('json', 'the module has no class Generator'),
  ],
)
def test_what_is_no_family_is_said(name, message):
  config = config_lib.resolve(config_lib.base(model=name))
  with pytest.raises(UserError, match=message):
    config_lib.validate(config)


def test_what_was_given_in_python_goes_on_there():
  config = tiny_run.make_config('model=given:0123,bits=4')
  there = r'given in Python; .*qgan_jax\.train'
  with pytest.raises(UserError, match=there):
    build.load_dataset(config, standin=True)
  with pytest.raises(UserError, match=there):
    build.make_variant(config, tiny_run.make_dataset())


def test_a_folder_does_not_decide_what_is_imported(tmp_path, monkeypatch):
  (tmp_path / 'evil.py').write_text('raise SystemExit("imported")')
  monkeypatch.syspath_prepend(tmp_path)
  config = tiny_run.make_config('bits=4')
  record = identity(config, 'digits')
  record['config']['model']['name'] = 'evil'
  (tmp_path / 'config.json').write_text(json.dumps(record))
  with pytest.raises(UserError, match='say --module=evil'):
    read_run(tmp_path)
  # What is imported already is the person's own.
  record['config']['model']['name'] = 'own_networks'
  (tmp_path / 'config.json').write_text(json.dumps(record))
  importlib.import_module('own_networks')
  assert read_run(tmp_path)[0].model.name == 'own_networks'
