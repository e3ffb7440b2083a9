"""What pip installs: a whole package, and what it needs."""

import ast
import configparser
import importlib.metadata
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from qgan_jax.config import experiments

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.name for path in (ROOT / 'experiments').glob('*.py'))
# Imported by TensorFlow Datasets, and by Pandas to write Parquet.
FOR_OTHERS = {'array-record', 'importlib-resources', 'pyarrow'}


def build(kind, source, out):
  """Builds as pip does, without a network; the file."""
  code = f'from setuptools import build_meta as b; b.build_{kind}({str(out)!r})'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=source, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  (path,) = set(out.iterdir())
  return path


@pytest.fixture(scope='module')
def wheels(tmp_path_factory):
  """A wheel of a checkout, and one of the source distribution."""
  path = tmp_path_factory.mktemp('built')
  source = path / 'source'
  shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
  archive = build('sdist', source, new(path / 'sdist'))
  with tarfile.open(archive) as file:
    file.extractall(path / 'unpacked', filter='data')
  (unpacked,) = (path / 'unpacked').iterdir()
  assert sorted(p.name for p in (unpacked / 'experiments').iterdir()) == PAGES
  return [
    build('wheel', source, new(path / 'of-checkout')),
    build('wheel', unpacked, new(path / 'of-sdist')),
  ]


def ignored(folder, names):
  """What git ignores, and git itself."""
  patterns = ['__pycache__']
  if Path(folder) == ROOT:
    patterns += ['.*', 'build', 'runs', '*.egg-info']
  return shutil.ignore_patterns(*patterns)(folder, names)


def new(folder):
  folder.mkdir()
  return folder


def test_a_wheel_has_all_files_of_the_package(wheels):
  files = {
    str(path.relative_to(ROOT))
    for path in (ROOT / 'qgan_jax').rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  }
  assert {'qgan_jax/py.typed', 'qgan_jax/artifacts/web.html'} <= files
  files |= {f'qgan_jax/experiments/{name}' for name in PAGES}
  for wheel in wheels:
    with zipfile.ZipFile(wheel) as file:
      packed = {n for n in file.namelist() if '.dist-info/' not in n}
      assert packed == files
      (about,) = (n for n in file.namelist() if n.endswith('/METADATA'))
      metadata = file.read(about).decode()
      (points,) = (n for n in file.namelist() if n.endswith('entry_points.txt'))
      assert b'qgan = qgan_jax.__main__:start' in file.read(points)
    version = importlib.metadata.version('qgan_jax')
    assert f'\nVersion: {version}\n' in metadata
    assert '\nLicense-File: LICENSE\n' in metadata
    assert (ROOT / 'README.md').read_text().strip() in metadata


def test_an_installed_package_brings_its_experiments(wheels, tmp_path):
  # Wheels of pure Python are installed by unpacking them.
  with zipfile.ZipFile(wheels[0]) as file:
    file.extractall(tmp_path / 'site')
  code = (
    'from qgan_jax.config import experiments, flags\n'
    'import qgan_jax; print(qgan_jax.__file__)\n'
    "print(flags.parse_args(['--config=digits:bits=4']).config.seed)"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env={'PYTHONPATH': str(tmp_path / 'site'), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.stdout == f'{tmp_path}/site/qgan_jax/__init__.py\n0\n', (
    done.stderr
  )


def test_a_checkout_has_one_folder_of_experiments():
  assert experiments.SHIPPED.resolve() == ROOT / 'experiments'


def required():
  """{extra, or '' for what is always needed: distributions}."""
  settings = configparser.ConfigParser()
  settings.read(ROOT / 'setup.cfg')
  texts = dict(settings['options.extras_require'])
  texts[''] = (ROOT / 'requirements.txt').read_text()
  return {
    extra: {normal(name) for name in re.findall(r'^[\w-]+', text, re.MULTILINE)}
    for extra, text in texts.items()
  }


def normal(name):
  return re.sub(r'[-_.]+', '-', name).lower()


def imported(*folders):
  """The distributions that files import, or name to `require`."""
  paths = [path for f in folders for path in (ROOT / f).rglob('*.py')]
  # Tests and benchmarks import those beside them by their names alone.
  package = ROOT / 'qgan_jax'
  own = {path.stem for path in paths if not path.is_relative_to(package)}
  of_module = importlib.metadata.packages_distributions()
  found = set()
  for path in paths:
    for node in ast.walk(ast.parse(path.read_text())):
      match node:
        case ast.Import(names):
          names = [alias.name for alias in names]
        case ast.ImportFrom(name):
          names = [name]
        case ast.Call(ast.Name('require'), [ast.Constant(name)]):
          names = [name]
        case _:
          continue
      for name in {name.partition('.')[0] for name in names} - own:
        if name not in {*sys.stdlib_module_names, 'qgan_jax'}:
          # `google` and its like are of several.
          found.add(normal(of_module.get(name, [name])[0]))
  return found


RUNTIME = '', 'onnx', 'openvino', 'report', 'ray', 'slurm', 'tflite', 'wandb'


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
  extras = required()
  declared = set().union(*(extras[name] for name in RUNTIME))
  assert imported('qgan_jax', 'experiments') == declared - FOR_OTHERS
  everything = set().union(*extras.values())
  folders = 'tests', 'benchmarks', 'docs', 'examples'
  assert imported(*folders) <= everything


def test_the_page_on_installation_lists_every_extra():
  page = (ROOT / 'docs' / 'installation.md').read_text()
  rows = re.findall(r'^\| (`[a-z]+`.*?) \|', page, re.MULTILINE)
  listed = {name for row in rows for name in re.findall('`(.*?)`', row)}
  assert listed == {*required()} - {''}


@pytest.mark.parametrize('path', ['README.md', 'docs', 'qgan_jax'])
def test_hints_name_extras_that_there_are(path):
  path = ROOT / path
  files = [path] if path.is_file() else path.rglob('*.*')
  text = '\n'.join(
    file.read_text()
    for file in files
    if file.suffix in ('.py', '.md') and file.is_file()
  )
  found = re.findall(r"pip install (?:-e )?'(\S+?)\[([\w,]+)\]'", text)
  assert found
  for name, extras in found:
    assert name in ('qgan_jax', '.') and set(extras.split(',')) <= set(
      required()
    )
    assert name == 'qgan_jax' or path.name != 'qgan_jax'
