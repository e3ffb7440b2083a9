import base64
import gzip
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import tarfile

from example_generator import make_generator
import numpy as np
import onnxruntime
import pytest

from qgan_jax.artifacts import web
from qgan_jax.artifacts.onnx_graphs import onnx_model
from qgan_jax.artifacts.plan import make_plan
from qgan_jax.errors import UserError

SCRIPT, PROGRAM = 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'


@pytest.fixture(scope='module')
def model():
  generator, _, _ = make_generator(num_classes=3)
  return onnx_model(
    make_plan(generator, integer=True),
    'gathered',
    {'description': 'weights </script> of 8 bits'},
  )


@pytest.fixture
def dist(tmp_path):
  (tmp_path / 'dist').mkdir()
  (tmp_path / 'dist' / SCRIPT).write_bytes(b'export const env = {};')
  (tmp_path / 'dist' / PROGRAM).write_bytes(b'\0asm')
  return tmp_path / 'dist'


def page_of(model, ort_web):
  return web.web_page(model, web.find_runtime(ort_web))


def inside(page, name):
  (found,) = re.findall(rf"^  {name}: '([^']+)',$", page, re.MULTILINE)
  return gzip.decompress(base64.b64decode(found))


def test_the_page_holds_everything(model, dist):
  page = page_of(model, dist).decode()
  assert inside(page, 'ort') == b'export const env = {};'
  assert inside(page, 'wasm') == b'\0asm'
  assert inside(page, 'model') == model
  assert '{{' not in page
  # Nothing is fetched from anywhere, and a description closes no script.
  assert not re.search(r'https?://|src=|href=', page)
  assert page.count('</script>') == 1
  (record,) = re.findall(r'^const generator = (.*);$', page, re.MULTILINE)
  record = json.loads(record)
  assert record['description'] == 'weights </script> of 8 bits'
  assert (record['latent_dim'], record['num_classes']) == (16, 3)
  assert page_of(model, dist).decode() == page


def test_what_is_missing_is_said(model, dist, tmp_path, monkeypatch):
  (dist / PROGRAM).unlink()
  with pytest.raises(UserError, match=f'--ort_web=.*{PROGRAM}.*No such file'):
    page_of(model, dist)
  monkeypatch.setattr(web.shutil, 'which', lambda name: None)
  with pytest.raises(UserError, match='npm is not installed.*--ort_web'):
    page_of(model, None)


def test_npm_offline_and_npm(model, dist, monkeypatch):
  monkeypatch.setattr(web.shutil, 'which', lambda name: name)

  def offline(command, **kwargs):
    raise subprocess.CalledProcessError(1, command, stderr='x\nno network')

  monkeypatch.setattr(web.subprocess, 'run', offline)
  with pytest.raises(
    UserError, match=r'cannot get .*\(no network\).*--ort_web'
  ):
    page_of(model, None)

  def pack(command, cwd, **kwargs):
    assert command == ['npm', 'pack', 'onnxruntime-web@1.30.0']
    path = f'{cwd}/onnxruntime-web-1.30.0.tgz'
    with tarfile.open(path, 'w:gz') as archive:
      archive.add(dist, 'package/dist')
    if known:
      digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
      monkeypatch.setattr(web, 'SHA256', digest)

  monkeypatch.setattr(web.subprocess, 'run', pack)
  known = False
  with pytest.raises(UserError, match='does not give the original.*--ort_web'):
    page_of(model, None)
  known = True
  assert page_of(model, None) == page_of(model, dist)


@pytest.mark.browser
@pytest.mark.parametrize(('bits', 'channels'), [(8, 1), (2, 4)])
def test_a_browser_draws_the_same_images(tmp_path, bits, channels):
  """The page in headless Chromium against ONNX Runtime here; needs npm."""
  from selenium import webdriver
  from selenium.webdriver.support.ui import WebDriverWait

  generator, _, _ = make_generator(
    bits=(bits, 8), num_classes=3, image_channels=channels
  )
  model = onnx_model(
    make_plan(generator, integer=True), 'gathered', {'description': 'of bits'}
  )
  (tmp_path / 'page.html').write_bytes(page_of(model, None))
  options = webdriver.ChromeOptions()
  options.binary_location = shutil.which('chromium')
  service = webdriver.ChromeService(shutil.which('chromedriver'))
  for flag in ('headless', 'no-sandbox', 'disable-gpu', 'no-first-run',
               'disable-background-networking'):  # fmt: skip
    options.add_argument(f'--{flag}')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  with webdriver.Chrome(options, service) as driver:
    driver.get(f'file://{tmp_path}/page.html')
    wait = WebDriverWait(driver, 60)
    wait.until(lambda d: d.execute_script('return document.body.dataset.ready'))
    session = onnxruntime.InferenceSession(model)
    seen = []
    for change in ('', "e('walk').value = 3.3;", "e('class').value = 2;"):
      driver.execute_script(
        'const e = (id) => document.getElementById(id);'
        f'globalThis.drawn = null; {change}'
        "e('walk').dispatchEvent(new Event('input'));"
      )
      wait.until(lambda d: d.execute_script('return globalThis.drawn !== null'))
      latents, images = (
        np.float32(driver.execute_script(f'return Array.from(drawn.{name})'))
        for name in ('latents', 'images')
      )
      label = int(
        driver.execute_script("return document.getElementById('class').value")
      )
      latents = latents.reshape(16, 16)
      assert 0.7 < latents.std() < 1.3
      (expected,) = session.run(
        None, {'latents': latents, 'labels': np.full(16, label)}
      )
      off = 127.5 * np.abs(images.reshape(expected.shape) - expected)
      assert (off <= 1).mean() > 0.999
      seen.append(images)
    assert np.abs(seen[0] - seen[1]).mean() > 0.05
    assert np.abs(seen[1] - seen[2]).mean() > 0.01
    shown = driver.find_element('css selector', 'output').text
    assert re.match(r'\d+\.\d\d ms per image', shown)
    told = driver.find_element('css selector', '#what').text
    packed = len(gzip.compress(model))
    assert told == (
      f'of bits: {packed / 1000:.0f} kB in this page, '
      f'{len(model) / 1000:.0f} kB unpacked.'
    )
    # The first image on the canvas: its opacity is its fourth channel.
    height, width = expected.shape[1:3]
    pixels = driver.execute_script(
      "return Array.from(e('canvas').getContext('2d').getImageData("
      f'2, 2, {width}, {height}).data)'.replace(
        'e(', 'document.getElementById('
      )
    )
    alpha = np.reshape(pixels, (height, width, 4))[..., 3]
    opaque = np.full((height, width), 255.0)
    if channels == 4:
      opaque = (expected[0, ..., 3] + 1) * 127.5
      assert opaque.std() > 20
    assert np.abs(alpha - opaque).max() <= 1.5
    assert driver.get_log('browser') == []
