"""Exported files: the same images from all, with no more than each needs."""

import json
from pathlib import Path
import subprocess
import sys
import textwrap
import zipfile

import example_generator
import jax.numpy as jnp
import numpy as np
import pytest
import strange_generators

from qgan_jax import artifacts, models
from qgan_jax.artifacts import drawer, drawing
from qgan_jax.artifacts.formats import export
from qgan_jax.artifacts.sinks import sample
from qgan_jax.errors import UserError
from qgan_jax.precision import Bits, Precision, Quantized, QuantizerSpec

ROOT = Path(__file__).parents[2]
FILES = ['generator-openvino.onnx', 'generator-onnxruntime.onnx',
         'generator-float.onnx', 'generator.stablehlo']  # fmt: skip
KWARGS = {'image_size': 28, 'channels': 16, 'latent_dim': 8}


def save(path, *, bits=(8, 8), num_classes=0, weights='uniform', dynamic=False):
  kwargs, variables = example_generator.make_float(
    num_classes=num_classes, **KWARGS
  )
  precision = Precision(
    QuantizerSpec(weights, -1), QuantizerSpec('affine'), 0 if dynamic else 0.9
  )
  widths = Bits(*(jnp.float32(n) for n in bits))
  module = models.make_generator('dcgan', **kwargs)
  latents = drawer.latents(9, 0, 8)
  labels = np.arange(64) % num_classes if num_classes else None
  ranges, _ = example_generator.calibrate(
    module, precision, variables, widths, latents, labels
  )
  network = Quantized(
    module, precision, widths, variables, {} if dynamic else ranges
  )
  names = ['ant', 'bee', '0'][:num_classes]
  metadata = {'dataset': 'none', 'step': 7, 'class_names': names}
  artifacts.save(path, network, metadata=metadata)
  return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('exported')
  save(path / 'generator.qgan', num_classes=3)
  export(path / 'generator.qgan', ['onnx', 'onnx-float', 'stablehlo'], path)
  return path


@pytest.mark.parametrize('name', ['onnx', 'onnx-vnni', 'onnx-float', 'web'])
def test_a_missing_package_is_said_before_anything_is_read(
  name, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'onnx', None)
  with pytest.raises(UserError, match='onnx is not installed: pip'):
    export(tmp_path / 'none.qgan', ['packed', name], tmp_path)


def draw(path, out, runtime=None, num=100, seed=5, label=None):
  sample(
    artifact=str(path),
    num=num,
    out=str(out),
    seed=seed,
    label=label,
    runtime=runtime,
  )
  with np.load(out) as file:
    return file['images'].astype(int), file['labels']


@pytest.mark.parametrize('label', [None, '2'])
def test_the_same_seed_draws_the_same_images_from_all(folder, tmp_path, label):
  images, labels = draw(
    folder / 'generator.qgan', tmp_path / 'x.npz', label=label
  )
  assert images.std() > 10
  for name in FILES:
    kind = 'stablehlo' if 'hlo' in name else 'onnx'
    for runtime in drawing.RUNTIMES[kind]:
      drawn, turns = draw(
        folder / name, tmp_path / 'x.npz', runtime, label=label
      )
      np.testing.assert_array_equal(turns, labels)
      off = np.abs(drawn - images)
      if name == 'generator-float.onnx':
        # Its activations are not rounded: another network, though not far.
        assert 0.1 < off.mean() < 10
      else:
        assert (off <= 1).mean() >= 0.999
      opened = drawing.open_drawer(str(folder / name), runtime)
      assert opened.class_names == ('ant', 'bee', '0')
      if kind == 'stablehlo':
        assert (off == 0).mean() > 0.999


@pytest.mark.parametrize('name', ['generator.qgan', *FILES[1:]])
def test_a_refused_call_changes_nothing_that_is_drawn_later(folder, name):
  draw = drawing.open_drawer(folder / name).draw
  z, labels = drawer.latents(3, 0, 8)[:4], np.arange(4) % 3
  expected = draw(z, labels)
  for inputs, message in (
    ((z, None), r'shape \[4, 8\]: \[N, 8\], \[N\] is needed'),
    ((z, labels[:3]), 'is needed'),
    ((z[:, :7], labels), 'is needed'),
    ((z.T, np.arange(8) % 3), 'is needed'),
    ((z[:0], labels[:0]), 'is needed'),
    ((z, labels + 1), 'labels from 1 to 3: of 3 classes'),
    ((z, labels - 1), 'labels from -1 to 1: of 3 classes'),
  ):
    with pytest.raises(ValueError, match=message):
      draw(*inputs)
    np.testing.assert_array_equal(draw(z, labels), expected)


def test_latents_are_normal_and_fixed_for_good():
  z = drawer.latents(3, 1, 4)
  assert (z.shape, z.dtype) == ((64, 4), np.float32)
  expected = [-2.627292, 0.865084, 0.286507, -1.432214]
  np.testing.assert_allclose(z[0], expected, atol=1e-6)
  many = np.concatenate([drawer.latents(0, i, 64) for i in range(50)])
  assert abs(many.mean()) < 0.01
  assert abs(many.std() - 1) < 0.01
  assert len(np.unique(many)) > 0.99 * many.size


def assert_same(drawn, expected):
  """Equal, but for codes that fall on the other side of a half: they are few.

  XLA may add in another order where it compiles another program.
  """
  off = np.abs(drawn - expected)
  # One code reaches several of an image's 784 pixels.
  assert (off < 2 / 255).mean() > (0.999 if len(drawn) > 8 else 0.99)
  assert off.mean() < 1e-3


def run(*args, **kwargs):
  return subprocess.run(
    [sys.executable, *args], capture_output=True, text=True, cwd=ROOT, **kwargs
  )


def test_stablehlo_runs_without_this_package(folder, tmp_path):
  """Only JAX, NumPy and the standard library, as the file's page says."""
  script = textwrap.dedent(f"""
    import sys, zipfile
    import jax, jax.export, numpy as np
    with zipfile.ZipFile('{folder}/generator.stablehlo') as file:
      program = jax.export.deserialize(bytearray(file.read('program')))
    z = np.load('{tmp_path}/z.npy')
    for n in (1, 64):
      images = program.call(z[:n], np.arange(n, dtype=np.int32) % 3)
      np.save(f'{tmp_path}/images{{n}}.npy', images)
    assert not [m for m in sys.modules if m.startswith(('qgan', 'flax'))]
  """)
  z = drawer.latents(0, 0, 8)
  np.save(tmp_path / 'z.npy', z)
  done = run('-c', script)
  assert done.returncode == 0, done.stderr
  generator = artifacts.load(folder / 'generator.qgan')
  expected = artifacts.images(generator, z, np.arange(64) % 3)
  for n in (1, 64):
    drawn = np.load(tmp_path / f'images{n}.npy')
    assert_same(drawn, expected[:n])


def test_an_onnx_file_is_drawn_from_without_jax(folder, tmp_path):
  for name, runtime in (('openvino', 'openvino'),
                        ('onnxruntime', 'onnxruntime')):  # fmt: skip
    script = textwrap.dedent(f"""
      import sys
      from qgan_jax import sample
      from qgan_jax.artifacts import runtimes
      sample.main(['--artifact={folder}/generator-{name}.onnx', '--num=1',
                   '--out={tmp_path}/x.png', '--runtime={runtime}'])
      assert '{runtime}' not in sys.modules  # It has a process of its own.
      runtimes.RUNTIMES['{runtime}']()  # As it does there.
      loaded = {{m.split('.')[0] for m in sys.modules}}
      assert '{runtime}' in loaded
      assert sys.modules.get('openvino_telemetry') is None
      assert not loaded & {{'jax', 'flax', 'onnx', 'ml_dtypes'}}, loaded
    """)
    done = run('-c', script)
    assert done.returncode == 0, done.stderr
    assert f'8-bit uniform, activations 8-bit affine, in {runtime}' in (
      done.stdout
    )


def test_stablehlo_holds_codes_at_their_bits(tmp_path):
  sizes = {}
  for bits in (1, 3, 8):
    path = save(tmp_path / 'generator.qgan', bits=(bits, 8))
    export(path, ['stablehlo'], tmp_path)
    sizes[bits] = (tmp_path / 'generator.stablehlo').stat().st_size
  weights = 16 * (8 * 64 + 64 * 32 + 32 * 16 + 16)
  for bits in (1, 3):
    saved = weights * (8 - bits) / 8
    # More instructions to unpack what no byte is a multiple of.
    assert sizes[8] - sizes[bits] == pytest.approx(saved, abs=4_000)


def test_dynamic_ranges_go_where_they_can(tmp_path):
  path = save(tmp_path / 'generator.qgan', dynamic=True)
  before = sorted(tmp_path.iterdir())
  with pytest.raises(UserError, match='activations of project .* each batch'):
    export(path, ['stablehlo', 'onnx'], tmp_path)
  assert sorted(tmp_path.iterdir()) == before  # None of them is written.
  export(path, ['stablehlo'], tmp_path)
  z = drawer.latents(0, 0, 8)
  drawn = artifacts.open_drawer(tmp_path / 'generator.stablehlo').draw(z, None)
  expected = artifacts.images(artifacts.load(path), z)
  assert_same(drawn, expected)


@pytest.mark.parametrize('family', models.FROM_IMAGES)
def test_networks_from_images_are_the_same_in_their_files(family, tmp_path):
  network, given = strange_generators.from_images(family, (17, 12), 'instance')
  expected = artifacts.images(network, given)
  path = tmp_path / 'generator.qgan'
  artifacts.save(path, network)
  loaded = artifacts.load(path)
  assert loaded.module == network.module
  np.testing.assert_array_equal(artifacts.images(loaded, given), expected)
  export(path, ['stablehlo'], tmp_path)
  opened = artifacts.open_drawer(tmp_path / 'generator.stablehlo')
  np.testing.assert_allclose(opened.draw(given, None), expected, atol=1e-4)


def test_a_file_that_needs_vnni_says_so_where_there_is_none(
  folder, tmp_path, monkeypatch, caplog
):
  export(folder / 'generator.qgan', ['onnx-vnni'], tmp_path)
  paths = [*folder.glob('*.onnx'), *tmp_path.glob('*-vnni.onnx')]
  assert len(paths) == 5
  for there in (True, False):
    monkeypatch.setattr(drawing, 'has_vnni', lambda there=there: there)
    for path in paths:
      for runtime in drawing.RUNTIMES['onnx']:
        caplog.clear()
        artifacts.open_drawer(path, runtime)
        warned = 'needs a processor with VNNI' in caplog.text
        assert warned == ('-vnni' in path.name and not there)
        assert len(caplog.records) == warned


@pytest.mark.parametrize(
  ('machine', 'info', 'expected'),
  [
    ('x86_64', 'flags : fpu avx512_vnni sse', True),
    ('AMD64', 'flags : fpu avx_vnni\nbugs :', True),
    ('x86_64', 'flags : fpu avx2 avx512f avx512_vnni_not', False),
    ('x86_64', None, False),
    ('aarch64', None, True),
  ],
)
def test_whether_there_is_vnni(machine, info, expected, tmp_path, monkeypatch):
  if info is not None:
    (tmp_path / 'cpuinfo').write_text(info)
  monkeypatch.setattr(drawing, '_CPU_INFO', tmp_path / 'cpuinfo')
  monkeypatch.setattr(drawing.platform, 'machine', lambda: machine)
  assert drawing.has_vnni() == expected


def flip(path, position):
  data = bytearray(path.read_bytes())
  data[position] ^= 0xFF
  return data


def test_files_that_are_cut_changed_or_something_else(folder, tmp_path):
  for name in ['generator.qgan', *FILES]:
    data = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f'{name} '):
      artifacts.open_drawer(tmp_path / name)
  for name in ('generator.qgan', 'generator.stablehlo'):
    (tmp_path / name).write_bytes(flip(folder / name, -5000))
    with pytest.raises(UserError, match='again'):
      artifacts.open_drawer(tmp_path / name)
  for content in (b'', b'GIF89a', b'\x08' * 100, b'PK\3\4' + bytes(50)):
    (tmp_path / 'other').write_bytes(content)
    with pytest.raises(UserError, match='other'):
      artifacts.open_drawer(tmp_path / 'other')


def test_a_compressed_or_newer_program_is_refused(folder, tmp_path):
  with zipfile.ZipFile(folder / 'generator.stablehlo') as file:
    contents = {name: file.read(name) for name in file.namelist()}
  path = tmp_path / 'x.stablehlo'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
    for name, data in contents.items():
      file.writestr(name, data)
  with pytest.raises(UserError, match='it is compressed'):
    artifacts.open_drawer(path)
  record = json.loads(contents['generator.json']) | {'version': 2}
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('generator.json', json.dumps(record))
    file.writestr('program', contents['program'])
  with pytest.raises(UserError, match='version is 2'):
    artifacts.open_drawer(path)


def test_an_onnx_file_of_another_program(tmp_path):
  import onnx
  from onnx import helper

  shape = helper.make_tensor_value_info('x', onnx.TensorProto.FLOAT, [1])
  out = helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, [1])
  graph = helper.make_graph(
    [helper.make_node('Relu', ['x'], ['y'])], 'g', [shape], [out]
  )
  model = helper.make_model(
    graph, ir_version=10, opset_imports=[helper.make_opsetid('', 21)]
  )
  onnx.save(model, tmp_path / 'x.onnx')
  with pytest.raises(UserError, match='qgan_jax exported'):
    artifacts.open_drawer(tmp_path / 'x.onnx', 'onnxruntime')


def test_wrong_arguments(folder, tmp_path):
  with pytest.raises(UserError, match='--format=png: one of packed, onnx'):
    export(folder / 'generator.qgan', ['onnx', 'png'], tmp_path)
  with pytest.raises(UserError, match='cannot read .*nowhere'):
    export(tmp_path / 'nowhere', ['onnx'], tmp_path)
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='--out=.*file cannot be a folder'):
    export(folder / 'generator.qgan', ['packed'], tmp_path / 'file')
