"""A web page that draws from the integer graph in a browser, offline.

The page contains the model, and ONNX Runtime Web to run it, so it can be opened
with a double click. That runtime is not part of this package: it is taken from
npm, or from a folder.
"""

import base64
import gzip
import hashlib
from pathlib import Path
import shutil
import subprocess
import tarfile
import tempfile

from qgan_jax.artifacts.onnx_builder import require
from qgan_jax.errors import UserError

PACKAGE = 'onnxruntime-web'
VERSION = '1.30.0'
# Of the archive that npm gives for this version.
SHA256 = 'd2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71'
_SCRIPT = 'ort.wasm.bundle.min.mjs'
_PROGRAM = 'ort-wasm-simd-threaded.wasm'
_TIMEOUT = 300  # Seconds for npm: it is 33 MB.
Runtime = tuple[bytes, bytes]  # The content of the script and the program.


def find_runtime(ort_web: Path | None) -> Runtime:
  """Finds ONNX Runtime Web, for `web_page`.

  Args:
    ort_web: a folder with its files, as in its npm package's `dist`; None to
      get them with npm.

  Raises:
    UserError: it cannot be found or downloaded.
  """
  return _read(ort_web) if ort_web else _fetch()


def web_page(model: bytes, runtime: Runtime) -> bytes:
  """The page, as HTML.

  Args:
    model: an ONNX file that ONNX Runtime runs in integers.
    runtime: what `find_runtime` returned.
  """
  script, program = runtime
  page = (Path(__file__).parent / 'web.html').read_text()
  # What closes a script must not be read as its end.
  onnx = require('onnx')
  entry, _ = onnx.load_from_string(model).metadata_props  # And the seal.
  record = entry.value.replace('<', '\\u003c')
  for name, content in (
    ('GENERATOR', record),
    ('ORT', _packed(script)),
    ('WASM', _packed(program)),
    ('MODEL', _packed(model)),
  ):
    page = page.replace('{{' + name + '}}', content)
  return page.encode()


def _packed(content: bytes) -> str:
  return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _read(folder: Path) -> Runtime:
  try:
    return (folder / _SCRIPT).read_bytes(), (folder / _PROGRAM).read_bytes()
  except OSError as error:
    raise UserError(
      f'--ort_web={folder}: {error.filename}: {error.strerror}; give the '
      f'folder `dist` of the npm package {PACKAGE}'
    ) from None


def _fetch() -> Runtime:
  npm = shutil.which('npm')
  name = f'{PACKAGE}@{VERSION}'
  remedy = f'unpack the npm package {name} and give --ort_web=…/dist'
  if npm is None:
    raise UserError(f'npm is not installed: install it, or {remedy}')
  with tempfile.TemporaryDirectory() as folder:
    try:
      subprocess.run(
        [npm, 'pack', name],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
      )
    except subprocess.SubprocessError as error:
      reason = str(getattr(error, 'stderr', '') or error).strip()
      raise UserError(
        f'npm cannot get {name} ({reason.splitlines()[-1]}): go online, or '
        f'{remedy}'
      ) from None
    (archive,) = Path(folder).glob('*.tgz')
    actual = hashlib.sha256(archive.read_bytes()).hexdigest()
    if actual != SHA256:
      raise UserError(
        f'npm does not give the original {name}: its SHA-256 is {actual}, '
        f'expected {SHA256}, and nothing of it is used; {remedy}'
      )
    with tarfile.open(archive) as files:
      return tuple(  # type: ignore[return-value]
        files.extractfile(f'package/dist/{file}').read()  # type: ignore[union-attr]
        for file in (_SCRIPT, _PROGRAM)
      )
