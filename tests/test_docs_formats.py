"""The page on formats says what is in the files that are written."""

import json
from pathlib import Path
import re
import zipfile

import example_generator
import jax
import numpy as np
import pytest

from qgan_jax import artifacts
from qgan_jax.artifacts import container, described
from qgan_jax.artifacts.formats import export, FORMATS
from qgan_jax.artifacts.packed import FORMAT_VERSION

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'formats.md').read_text()
TYPES = {1: 'float32', 7: 'int64'}


def rows(heading):
  """The tables below a heading: {words of the first cell: other cells}."""
  text = PAGE.partition(f'\n## {heading}\n')[2].partition('\n## ')[0]
  found = {}
  for line in re.findall(r'^\| (`.*) \|$', text, re.MULTILINE):
    first, *others = line.split(' | ')
    for name in re.findall('`(.*?)`', first):
      found[name] = others
  return found


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """The files of a network of 8 bits with classes, by their names' ends."""
  folder = tmp_path_factory.mktemp('formats')
  network, _, _ = example_generator.make_generator(num_classes=3, channels=8)
  artifacts.save(folder / 'generator.qgan', network, metadata={'step': 3})
  names = [name for name in FORMATS if name != 'web']
  export(folder / 'generator.qgan', names, folder)
  return {
    path.name.removeprefix('generator'): path for path in folder.iterdir()
  }


def test_a_packed_file_is_read_as_the_page_says(files, tmp_path, monkeypatch):
  monkeypatch.chdir(files['.qgan'].parent)
  names = {}
  for code in re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL):
    exec(code, names)
  (content,) = names['load_file'](files['.qgan']).values()
  header, tensors = container.split(content)
  assert names['end'] == content.size
  assert {k: v for k, v in names['header'].items() if k != 'tensors'} == header
  for name, x in tensors.items():
    np.testing.assert_array_equal(names['tensors'][name], x)
  listed = rows('`.qgan`')
  assert {*names['header']} == {n for n in listed if '/' not in n}
  assert {f'{n.partition("/")[0]}/…' for n in tensors} | {
    'bitmap/…', 'learned/…', 'ranges/…',
  } == {n for n in listed if '/' in n}  # fmt: skip
  assert f"{{'qgan': '{FORMAT_VERSION}'}}" in PAGE
  # Codes times scales are the weights that are multiplied with.
  params = artifacts.load(files['.qgan']).variables['params']
  packed = [n for n in header['codes'] if f'bitmap/{n}' not in tensors]
  assert packed
  for name in packed:
    weight = params
    for key in name.split('/')[1:]:
      weight = weight[key]
    scale = tensors[f'quantizer/{name}/scale']
    np.testing.assert_allclose(names['codes'](name) * scale, weight, rtol=1e-6)


def test_onnx_files_are_what_the_page_says(files):
  onnx = pytest.importorskip('onnx')
  listed = rows('ONNX')
  interface = rows('What goes in and comes out')
  suffixes = {name for name in files if name.endswith('.onnx')}
  assert {f'…{name}' for name in suffixes} == {
    name for name in listed if name.startswith('…')
  }
  for suffix in suffixes:
    model = onnx.load(files[suffix])
    form, opset, *_ = listed[f'…{suffix}']
    record, seal = model.metadata_props
    assert (record.key, seal.key) == ('qgan', 'sha256')
    said = json.loads(record.value)
    assert {*said} == {n for n in listed if not n.startswith('…')}
    if form.startswith('`'):
      assert form == f'`{said["form"]}`'
      assert opset.startswith(str(model.opset_import[0].version))
    assert said['integer'] == ('float' not in suffix)
    assert [x.name for x in model.graph.input] == ['latents', 'labels']
    assert [x.name for x in model.graph.output] == ['images']
    for x in (*model.graph.input, *model.graph.output):
      kind = x.type.tensor_type
      first, *others = (d.dim_param or d.dim_value for d in kind.shape.dim)
      cell = interface[x.name][0]
      assert first == 'batch' and f'[batch{", " if others else "]"}' in cell
      if x.name == 'labels':
        assert TYPES[kind.elem_type] == 'int64'
        assert 'Labels are int64 in ONNX' in PAGE
      else:
        assert cell.startswith(TYPES[kind.elem_type])


def test_stablehlo_is_what_the_page_says(files):
  text = PAGE.partition('\n## StableHLO\n')[2].partition('\n## ')[0]
  with zipfile.ZipFile(files['.stablehlo']) as archive:
    assert all(not entry.compress_type for entry in archive.infolist())
    names = archive.namelist()
    record = described.read_record(archive.read('generator.json'))
    program = jax.export.deserialize(bytearray(archive.read('program')))
  for name in {*names, *record}:
    assert f'`{name}`' in text
  assert program.platforms == ('cpu', 'cuda', 'tpu')
  assert [str(x.dtype) for x in program.in_avals] == ['float32', 'int32']
  assert 'int32 in StableHLO' in PAGE
