"""Commands as functions in this process, and in processes of their own."""

import importlib
from pathlib import Path
import re
import subprocess
import sys

from absl import flags
from command_line import ROOT
import example_generator
import jax
import numpy as np
import pytest

from qgan_jax import __main__ as qgan
from qgan_jax import artifacts, export, post_training, sample, sweep
from qgan_jax.artifacts import formats
from qgan_jax.errors import UserError

FLAGS = {
  'evaluate': 'artifact config help_config module nearest samples seed step '
  'time_limit workdir',
  'export': 'artifact format module ort_web out time_limit workdir',
  'main': 'config coordinator distributed help_config process processes '
  'workdir',
  'population': 'trials',
  'preflight': 'against_float config help_config json layout on price sweep',
  'quantize': 'a_bits activation_quantizer bias_correction bits calibration '
  'dynamic max_ratio method module out quantizer rounding_steps samples seed '
  'size w_bits workdir',
  'report': 'files host out port serve within',
  'sample': 'artifact images label module num out runtime seed time_limit',
  'sweep': 'config cpus dry_run gpus grace help_config launcher layout '
  'parallel ray_address ray_resources resume retries slurm sweep workdir',
}
MODULES = {name: importlib.import_module(f'qgan_jax.{name}') for name in FLAGS}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A folder with `generator.qgan` in it, of three classes."""
  path = tmp_path_factory.mktemp('run')
  network, _, _ = example_generator.make_generator(num_classes=3)
  artifacts.save(path / 'generator.qgan', network)
  return path


def test_every_command_is_here():
  files = {path.stem for path in (ROOT / 'qgan_jax').glob('*.py')}
  shared = {'__init__', '__main__', 'backend', 'errors', 'interrupts'}
  assert files - shared == set(FLAGS)
  assert set(qgan.COMMANDS.values()) == set(FLAGS)


def test_qgan_calls_the_command_that_is_named(capsys):
  for arguments in [], ['-h'], ['--help']:
    assert qgan.main(arguments) == 0
    told = capsys.readouterr().out
    lines = re.findall('^  ([a-z]+)  ', told, re.MULTILINE)
    assert sorted([*lines, 'main']) == sorted(qgan.COMMANDS)
  for name, module in qgan.COMMANDS.items():
    with pytest.raises(SystemExit, match='^0$'):
      qgan.main([name, '-h'])
    assert capsys.readouterr().out.startswith(MODULES[module].__doc__)
  with pytest.raises(UserError, match="no such command; did you mean 'sample'"):
    qgan.main(['sampel', '--num=3'])
  with pytest.raises(UserError, match='say one of train, main, sweep'):
    qgan.main(['--num=3'])


def test_qgan_in_a_process(workdir, tmp_path):
  arguments = (f'--artifact={workdir}/generator.qgan', '--num=5')
  done = run('__main__', 'sample', *arguments, f'--out={tmp_path}/x.png')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('wrote 5 images')
  failed = run('__main__', 'sample', *arguments)
  assert failed.returncode == 2
  assert failed.stderr.startswith('error: --out=… is missing')


def test_qgan_finds_modules_in_the_working_folder(workdir, tmp_path):
  (tmp_path / 'my_networks.py').write_text("print('imported')")
  command = Path(sys.executable).with_name('qgan')
  arguments = ('sample', f'--artifact={workdir}/generator.qgan', '--num=5')
  arguments += ('--out=x.png', '--module=my_networks')
  done = subprocess.run(
    [command, *arguments],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('imported\nwrote 5 images')


def test_importing_a_command_defines_no_flag():
  owners = flags.FLAGS.flags_by_module_dict()
  assert not [name for name in owners if name.startswith('qgan_jax')]


@pytest.mark.parametrize('name', FLAGS)
def test_help_describes_a_command_and_its_flags(name, capsys):
  for argument in ('--help', '-h', '-?', '--helpfull'):
    with pytest.raises(SystemExit) as ended:
      MODULES[name].main([argument])
    assert ended.value.code == 0
    told, _, listed = capsys.readouterr().out.partition('\nflags:\n')
    assert told == MODULES[name].__doc__
    listed, _, others = listed.lstrip().partition('\n\n')
    module, *lines = listed.splitlines()
    assert module == f'qgan_jax.{name}:'
    starts = [line.strip() for line in lines if line.startswith('  --')]
    found = [s[2:].removeprefix('[no]').partition(':')[0] for s in starts]
    assert found == FLAGS[name].split()
    assert ('--verbosity' in others) == (argument == '--helpfull')


def draw(out, *arguments):
  sample.main([*arguments, f'--out={out}'])
  with np.load(out) as file:
    return file['images'], file['labels']


def test_two_commands_in_turn_with_other_flags_each_time(workdir, tmp_path):
  packed = f'--artifact={workdir}/generator.qgan'
  few, turns = draw(tmp_path / 'few.npz', packed, '--num=5')
  assert turns.tolist() == [0, 1, 2, 0, 1]
  export.main([packed, f'--out={tmp_path}/a', '--format=packed'])
  ones, labels = draw(tmp_path / 'ones.npz', packed, '--label=1', '--num', '5')
  assert labels.tolist() == [1] * 5
  np.testing.assert_array_equal(few[1], ones[1])
  # An --artifact that were left from the call before would be refused.
  export.main([f'--workdir={workdir}', f'--out={tmp_path}/b',
               '--format=packed'])  # fmt: skip
  for folder in 'a', 'b':
    assert (tmp_path / folder / 'generator.qgan').exists()
  many, turns = draw(tmp_path / 'many.npz', packed)
  assert len(many) == 64
  assert turns[:4].tolist() == [0, 1, 2, 0]


def test_a_folder_of_several_artifacts_needs_the_name_of_one(tmp_path):
  for name in 'decoder.qgan', 'generator.qgan':
    (tmp_path / name).touch()
  with pytest.raises(
    UserError, match='holds decoder.qgan, generator.qgan: say'
  ):
    export.main([f'--workdir={tmp_path}'])


@pytest.mark.parametrize('arguments', [[], ['--workdir=runs/mnist/bits=8-s0']])
def test_the_keys_of_a_config_are_listed_without_one(arguments, capsys):
  with pytest.raises(SystemExit, match='0'):
    MODULES['evaluate'].main(['--help_config', *arguments])
  assert '  steps\n' in capsys.readouterr().out


STRANGER = """
import flax.linen as nn

class G(nn.Module):
  @nn.compact
  def __call__(self, z):
    return nn.tanh(nn.Dense(16)(z)).reshape(-1, 4, 4, 1)
"""


def test_a_class_of_ones_own_is_imported_by_its_module(tmp_path, monkeypatch):
  (tmp_path / 'stranger.py').write_text(STRANGER)
  monkeypatch.syspath_prepend(tmp_path)
  module = importlib.import_module('stranger').G()
  z = np.zeros((4, 3), np.float32)
  network = post_training.quantize(
    (module, module.init(jax.random.key(0), z)), bit_width=8, calibrate=z + 1
  )
  artifacts.save(tmp_path / 'g.qgan', network)
  packed = f'--artifact={tmp_path}/g.qgan'
  draw_it = [packed, f'--out={tmp_path}/x.png']
  export_it = [packed, '--format=stablehlo']
  # In another process nothing has imported it, and the file does not.
  for main, arguments in (sample.main, draw_it), (export.main, export_it):
    monkeypatch.delitem(sys.modules, 'stranger')
    with pytest.raises(UserError, match='a command does, by --module=stranger'):
      main(arguments)
    assert 'stranger' not in sys.modules
    with pytest.raises(UserError, match='--module=strange cannot be imported'):
      main([*arguments, '--module=strange'])
    main([*arguments, '--module=stranger'])
  assert (tmp_path / 'x.png').exists()
  assert (tmp_path / 'g.stablehlo').exists()


def test_configs_and_their_keys_are_those_of_a_call(monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  for name, override in (('mnist', ['--config.steps=5']), ('digits', [])):
    config = f'--config=experiments/{name}.py'
    code = sweep.main([config, *override, '--sweep=bits=8,4', '--dry_run'])
    assert code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line, bits in zip(lines, (8, 4), strict=True):
      assert f' {config}:bits={bits} ' in line
      assert ('--config.steps=5' in line) == bool(override)


def test_a_program_may_have_flags_of_the_same_names(workdir, tmp_path):
  flags.DEFINE_integer('num', 7, 'Of something else.')
  try:
    images, _ = draw(
      tmp_path / 'x.npz', f'--artifact={workdir}/generator.qgan', '--num=2'
    )
    assert len(images) == 2
    assert flags.FLAGS['num'].value == 7
  finally:
    del flags.FLAGS.num


def test_flags_of_abseil_are_known_to_every_command(workdir, tmp_path):
  (tmp_path / 'flags').write_text('--num=3\n--verbosity=-2\n')
  packed = f'--artifact={workdir}/generator.qgan'
  verbosity = flags.FLAGS['verbosity'].value
  try:
    images, _ = draw(tmp_path / 'x.npz', packed, f'--flagfile={tmp_path}/flags')
    assert len(images) == 3
    assert flags.FLAGS['verbosity'].value == -2
  finally:
    flags.FLAGS['verbosity'].value = verbosity


@pytest.mark.parametrize('name', sorted(FLAGS.keys() - {'report'}))
def test_what_is_no_flag_is_refused(name):
  with pytest.raises(UserError, match='unexpected argument .once'):
    MODULES[name].main(['once', 'more'])
  with pytest.raises(UserError, match="'no_such'; --help shows every flag"):
    MODULES[name].main(['--no_such=1'])


def run(module, *arguments):
  return subprocess.run(
    [sys.executable, '-m', f'qgan_jax.{module}', *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_sampling_in_a_process(workdir, tmp_path):
  arguments = (f'--artifact={workdir}/generator.qgan', '--num=5')
  done = run('sample', *arguments, f'--out={tmp_path}/x.png')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('wrote 5 images')
  assert 'Unable to initialize backend' not in done.stderr  # An INFO of JAX's.
  assert (tmp_path / 'x.png').exists()
  failed = run('sample', *arguments)
  assert failed.returncode == 2
  assert failed.stderr == (
    'error: --out=… is missing: see --help for an example\n'
  )


def test_exporting_in_a_process(workdir, tmp_path):
  done = run(
    'export', f'--workdir={workdir}', f'--out={tmp_path}',
    '--format=packed,onnx'
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert len(done.stdout.splitlines()) == 3
  for runtime in ('openvino', 'onnxruntime'):
    # Each file goes first to the runtime that it was made for.
    assert f'generator-{runtime}.onnx: ' in done.stdout
    assert f'drawn from in {runtime}\n' in done.stdout
  files = formats.export(workdir / 'generator.qgan', ['onnx'], workdir)
  for path in (workdir / 'generator.qgan', *files):
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'give --workdir=FOLDER of a run, or --artifact'),
    (['--workdir=nowhere'], 'nowhere holds no .qgan'),
  ],
)
def test_a_wrong_command_is_one_line(arguments, message):
  done = run('export', *arguments)
  assert done.returncode == 2
  assert done.stderr.startswith(f'error: {message}')
  assert len(done.stderr.splitlines()) == 1
