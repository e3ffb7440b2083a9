import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from qgan_jax import artifacts, models
from qgan_jax.artifacts.drawer import class_names_of
from qgan_jax.artifacts.sinks import sample
from qgan_jax.errors import UserError
from qgan_jax.precision import Bits, Precision, Quantized, QuantizerSpec


def save(path, num_classes=0, **kwargs):
  kwargs |= {
    'image_size': 8, 'channels': 8, 'latent_dim': 5, 'num_classes': num_classes
  }  # fmt: skip
  module = models.make_generator('dcgan', **kwargs)
  labels = jnp.zeros(1, jnp.int32) if num_classes else None
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, 5)), labels)
  )
  rng = np.random.default_rng(0)
  network = Quantized(
    module,
    # Dynamic ranges: where batches are not whole, they show.
    Precision(QuantizerSpec('uniform'), QuantizerSpec('affine'), 0.0),
    Bits(jnp.float32(4), jnp.float32(8)),
    jax.tree.map(
      lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes
    ),
  )
  names = {'class_names': ['ant', 'bee', '0'][:num_classes]}
  artifacts.save(path, network, metadata=names)


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
  path = tmp_path_factory.mktemp('artifact') / 'g.qgan'
  save(path)
  return str(path)


@pytest.fixture(scope='module')
def conditional(tmp_path_factory):
  path = tmp_path_factory.mktemp('artifact') / 'conditional.qgan'
  save(path, num_classes=3)
  return str(path)


def draw(artifact, out, num=100, seed=0, label=None, runtime=None):
  sample(
    artifact=artifact,
    num=num,
    out=str(out),
    seed=seed,
    label=label,
    runtime=runtime,
  )
  if str(out).endswith('.npz'):
    with np.load(out) as file:
      return dict(file)
  return None


def test_npz_folder_and_grid_hold_the_same_images(artifact, tmp_path, capsys):
  images = draw(artifact, tmp_path / 'x.npz')['images']
  assert images.shape == (100, 8, 8, 1)
  assert images.dtype == np.uint8
  assert len(np.unique(images, axis=0)) == 100

  draw(artifact, f'{tmp_path}/new/folder/')
  files = sorted((tmp_path / 'new' / 'folder').iterdir())
  assert [file.name for file in files[:2]] == ['00.png', '01.png']
  for file, image in zip(files, images, strict=True):
    with Image.open(file) as png:
      np.testing.assert_array_equal(png, image[..., 0])

  draw(artifact, tmp_path / 'x.png')
  artifacts.save_grid(tmp_path / 'expected.png', images)
  expected = (tmp_path / 'expected.png').read_bytes()
  assert (tmp_path / 'x.png').read_bytes() == expected

  told = capsys.readouterr().out
  assert f'wrote 100 images to {tmp_path}/x.png' in told
  assert 'images/s' in told
  assert 'weights 4-bit uniform, activations 8-bit affine' in told


def test_transparency_is_written(tmp_path):
  save(tmp_path / 'g.qgan', image_channels=4)
  artifact = str(tmp_path / 'g.qgan')
  images = draw(artifact, tmp_path / 'x.npz', num=2)['images']
  assert images.shape == (2, 8, 8, 4)
  draw(artifact, f'{tmp_path}/folder/', num=2)
  for i, image in enumerate(images):
    with Image.open(tmp_path / 'folder' / f'{i}.png') as png:
      assert png.mode == 'RGBA'
      np.testing.assert_array_equal(png, image)
  draw(artifact, tmp_path / 'x.png', num=2)
  with Image.open(tmp_path / 'x.png') as png:
    assert png.mode == 'RGB'


def test_images_depend_on_the_seed_and_not_on_their_number(artifact, tmp_path):
  all_images = draw(artifact, tmp_path / 'all.npz', num=70)['images']
  for num in (1, 66):
    images = draw(artifact, tmp_path / 'few.npz', num=num)['images']
    np.testing.assert_array_equal(images, all_images[:num])
  draw(artifact, tmp_path / 'again.npz', num=70)
  again = (tmp_path / 'again.npz').read_bytes()
  assert again == (tmp_path / 'all.npz').read_bytes()
  other = draw(artifact, tmp_path / 'other.npz', num=70, seed=1)['images']
  assert (other != all_images).any(axis=(1, 2, 3)).all()


def test_labels(conditional, tmp_path):
  turns = draw(conditional, tmp_path / 'x.npz')
  np.testing.assert_array_equal(turns['labels'], np.arange(100) % 3)
  ones = draw(conditional, tmp_path / 'y.npz', label='1')
  assert (ones['labels'] == 1).all()
  same = (turns['images'] == ones['images']).all(axis=(1, 2, 3))
  assert not same[turns['labels'] != 1].any()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'num': 0}, '--num=0'),
    ({'seed': -1}, '--seed=-1'),
    ({'label': '3'}, '--label=3.* no labels'),
    ({'runtime': 'openvino'}, '--runtime=openvino: .* packed, .* jax'),
    ({'out': 'no/such/x.png'}, 'no folder no/such'),
    ({'out': 'x.jpg'}, '--out=x.jpg: ….png, ….npz or a folder'),
    ({'num': 10**6}, '--num=1000000 .*folder'),
    ({'artifact': 'missing.qgan'}, 'cannot read missing.qgan'),
  ],
)
def test_wrong_arguments(artifact, tmp_path, monkeypatch, arguments, message):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=message):
    draw(**{'artifact': artifact, 'out': 'x.png'} | arguments)
  assert not list(tmp_path.iterdir())


def test_a_label_out_of_range(conditional, tmp_path):
  with pytest.raises(UserError, match='--label=3: .* labels 0 to 2'):
    draw(conditional, tmp_path / 'x.png', label='3')


def test_a_label_has_a_name(conditional, tmp_path):
  for name, number in (('ant', 0), ('bee', 1), ('0', 2)):
    drawn = draw(conditional, tmp_path / 'x.npz', num=1, label=name)
    assert drawn['labels'].tolist() == [number]
  with pytest.raises(UserError, match='called ant, bee, 0; did you mean .bee'):
    draw(conditional, tmp_path / 'y.npz', label='beee')
  for wrong in ('-1', '1.0', '٣', '9' * 5000):
    with pytest.raises(UserError, match='labels 0 to 2'):
      draw(conditional, tmp_path / 'y.npz', label=wrong)


@pytest.mark.parametrize(
  'metadata',
  [
    None,
    {},
    {'class_names': 'abc'},
    {'class_names': ['a', 'b']},
    {'class_names': ['a', 'b', 'a']},
    {'class_names': ['a', 'b', 3]},
    {'class_names': ['a', 'b', []]},
  ],
)
def test_names_that_are_none_are_left_out(metadata):
  assert class_names_of(metadata, 3) == ()


def test_images_are_not_mixed_with_others(artifact, tmp_path):
  (tmp_path / '0.png').touch()
  with pytest.raises(UserError, match='has files in it'):
    draw(artifact, tmp_path)
  with pytest.raises(UserError, match='cannot be a folder'):
    draw(artifact, f'{tmp_path}/0.png/')
