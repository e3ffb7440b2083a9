"""`sample --images`: an image of every picture, from every kind of file."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from qgan_jax import artifacts, post_training, sample
from qgan_jax.artifacts.drawer import Fitting, fitting_of
from qgan_jax.artifacts.formats import export
from qgan_jax.errors import UserError

SIZE = 8
FITTED = {'input_images': {'fit': 'pad', 'pixel_art': True, 'white': 4095}}


class Negative(nn.Module):
  """Images turned to their negatives, by a convolution of one pixel."""

  @nn.compact
  def __call__(self, images):
    return nn.Conv(3, (1, 1))(images)


class Noise(nn.Module):
  @nn.compact
  def __call__(self, latents):
    return jnp.tanh(nn.Dense(48)(latents)).reshape(-1, 4, 4, 3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with both networks, and the one of images in other formats."""
  path = tmp_path_factory.mktemp('networks')
  images = np.zeros((1, SIZE, SIZE, 3), np.float32)
  # What is drawn is −x, at both ends of each channel too.
  kernel = -jnp.eye(3)[None, None]
  params = {'Conv_0': {'kernel': kernel, 'bias': jnp.zeros(3)}}
  rng = np.random.default_rng(0)
  seen = rng.integers(0, 256, (64, SIZE, SIZE, 3)) / 127.5 - 1
  network = post_training.quantize(
    (Negative(), {'params': params}),
    bit_width=8,
    calibrate=seen.astype(np.float32),
  )
  assert network(images).shape == (1, SIZE, SIZE, 3)
  artifacts.save(path / 'negative.qgan', network, metadata=FITTED)
  export(path / 'negative.qgan', ['onnx', 'stablehlo'], path)
  latents = np.ones((4, 5), np.float32)
  noise = Noise().init(jax.random.key(0), latents)
  network = post_training.quantize(
    (Noise(), noise), bit_width=8, calibrate=latents
  )
  artifacts.save(path / 'noise.qgan', network)
  return path


def run(folder, name, pictures, out, *more):
  sample.main(
    [
      f'--artifact={folder / name}',
      f'--images={pictures}',
      f'--out={out}',
      f'--module={__name__}',
      *more,
    ]
  )


@pytest.fixture
def pictures(tmp_path):
  """Squares, one of which is to be enlarged, and a wide one."""
  rng = np.random.default_rng(1)
  for name, shape in (
    ('a.png', (SIZE, SIZE)),
    ('deep/b.bmp', (SIZE // 2, SIZE // 2)),
    ('deep/c.png', (SIZE // 2, SIZE)),
  ):
    path = tmp_path / 'in' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (*shape, 3)).astype('uint8')
    Image.fromarray(pixels).save(path)
  (tmp_path / 'in' / 'broken.png').write_bytes(b'no picture')
  return tmp_path / 'in'


def fitted(path):
  """A picture as `FITTED` says: enlarged by 2, or padded with its edges."""
  pixels = np.asarray(Image.open(path)).astype(int)
  height, width = pixels.shape[:2]
  if width < SIZE:
    return pixels.repeat(2, 0).repeat(2, 1)
  above = (SIZE - height) // 2
  return np.pad(
    pixels, ((above, SIZE - height - above), (0, 0), (0, 0)), mode='edge'
  )


@pytest.mark.parametrize(
  'name',
  [
    'negative.qgan',
    'negative.stablehlo',
    'negative-openvino.onnx',
    'negative-onnxruntime.onnx',
  ],
)
def test_each_picture_is_translated_under_its_name(
  folder, pictures, tmp_path, name, capsys, caplog
):
  run(folder, name, pictures, tmp_path / 'out')
  assert capsys.readouterr().out.startswith('wrote 3 images')
  assert 'broken.png cannot be read' in caplog.text
  out = tmp_path / 'out'
  made = sorted(p for p in out.rglob('*') if p.is_file())
  names = [str(path.relative_to(out)) for path in made]
  assert names == ['a.png', 'deep/b.png', 'deep/c.png']
  for path, source in zip(
    made, ('a.png', 'deep/b.bmp', 'deep/c.png'), strict=True
  ):
    found = np.asarray(Image.open(path)).astype(int)
    # Eight bits of activations and of weights.
    assert np.abs(found - (255 - fitted(pictures / source))).max() <= 2


@pytest.mark.parametrize(
  ('name', 'more', 'says'),
  [
    ('noise.qgan', (), 'draws from latents, and not of images: leave --images'),
    ('negative.qgan', ('--num=3',), '--num does nothing with --images'),
    ('negative.qgan', ('--label=x',), '--label does nothing with --images'),
    ('negative.qgan', ('--seed=5',), '--seed does nothing with --images'),
    ('negative.qgan', ('--images=/nowhere',), "no image folder '/nowhere'"),
    ('negative.qgan', ('--out=x.png',), 'give a folder'),
  ],
)
def test_what_does_not_fit_is_refused(
  folder, pictures, tmp_path, name, more, says
):
  with pytest.raises(UserError, match=says):
    run(folder, name, pictures, tmp_path / 'out', *more)
  assert not (tmp_path / 'out').exists()


def test_what_is_written_is_not_read(folder, pictures, tmp_path):
  (tmp_path / 'link').symlink_to(pictures)
  for out in (pictures / 'made', tmp_path / 'link' / 'made', pictures):
    with pytest.raises(UserError, match='lies inside --images=.*name another'):
      run(folder, 'negative.qgan', pictures, out)
  assert not (pictures / 'made').exists()


def test_an_artifact_of_images_needs_some(folder, tmp_path):
  with pytest.raises(UserError, match='makes images of images: give --images='):
    sample.main([
      f'--artifact={folder}/negative.qgan', f'--out={tmp_path}/x.png',
      f'--module={__name__}',
    ])  # fmt: skip
  with pytest.raises(UserError, match='--format=web: the page draws from lat'):
    export(folder / 'negative.qgan', ['web'], tmp_path)


def test_two_pictures_of_one_name_are_not_lost(folder, pictures, tmp_path):
  Image.new('RGB', (SIZE, SIZE)).save(pictures / 'a.bmp')
  with pytest.raises(UserError, match='have the same name but for the ext'):
    run(folder, 'negative.qgan', pictures, tmp_path / 'out')


@pytest.mark.parametrize(
  'said', [None, [], {}, {'fit': 'x'}, {'fit': ['crop']}, 'pad']
)
def test_a_fitting_that_is_none_is_the_usual_one(said):
  assert fitting_of({'input_images': said}) == Fitting('crop', False)
  assert fitting_of(FITTED) == Fitting('pad', True, 4095)


@pytest.mark.parametrize('white', [None, 0, -1, 65536, True, '255', [255]])
def test_a_white_that_is_none_is_that_of_16_bits(white):
  said = FITTED['input_images'] | {'white': white}
  assert fitting_of({'input_images': said}) == Fitting('pad', True)
