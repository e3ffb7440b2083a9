"""The classifier behind the scores: deterministic, good, cached, honest."""

import json
import os
import pwd

import numpy as np
import pytest
from sklearn import datasets

from qgan_jax.errors import cache_folder, UserError
from qgan_jax.metrics import classifier, classifier_extractor, score
from qgan_jax.metrics.extractors import over_grey


@pytest.fixture(scope='module')
def digits():
  data = datasets.load_digits()
  images = np.repeat(np.repeat(data.images, 3, 1), 3, 2)
  images = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None]
  order = np.random.default_rng(0).permutation(len(images))
  images = (images * (255 / 16)).astype(np.uint8)[order]
  labels = data.target[order]
  return images[:1400], labels[:1400], images[1400:], labels[1400:]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
  monkeypatch.setattr(classifier, '_STEPS', 3)


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(classifier, '_STEPS', 150)
    cache = tmp_path_factory.mktemp('classifier')
    return classifier_extractor(*_rows(digits), cache_dir=cache)


# Equal distributions of as many images cover 1 − 2⁻⁵ = 0.97 with 5 neighbours
# (Naeem et al., 2002.09797, section 3.3).
_COVERAGE = 0.9


def _rows(digits, supervised=True):
  train, labels, test, test_labels = digits
  if not supervised:
    labels = test_labels = None
  return 'digits', train, labels, test, test_labels, 10


def test_learns_and_gives_features_for_any_number(digits, trained):
  extractor = trained
  assert extractor.name == 'classifier-digits'
  assert extractor.accuracy > 0.93
  test = digits[2]
  features, probabilities = extractor.extract(test)
  assert features.shape == (len(test), 128)
  assert features.dtype == np.float32
  assert features.min() == 0
  np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
  # The batch and its filling change nothing.
  many = np.concatenate([test, test])
  both = extractor.extract(many).features
  np.testing.assert_allclose(both[len(test) :], features, atol=1e-4)
  alone = extractor.extract(test[:1]).features
  np.testing.assert_allclose(alone, features[:1], atol=1e-4)


def test_scores_are_json_and_see_a_collapse(digits, trained):
  train, _, test, _ = digits
  extractor = trained
  good = score(extractor, train, test)
  bad = score(extractor, train, np.repeat(test[:1], 300, 0))
  noise = score(
    extractor,
    train,
    np.random.default_rng(0).integers(256, size=test.shape, dtype=np.uint8),
  )
  assert json.loads(json.dumps(good)) == good
  assert 'fid' not in good
  assert good['extractor']['hash'] == extractor.hash
  assert (good['num_real'], good['num_fake']) == (1400, len(test))
  for worse in (bad, noise):
    assert worse['frechet_distance'] > 5 * good['frechet_distance']
    assert worse['coverage'] < 0.1 < _COVERAGE < good['coverage']
  assert good['modes_covered'] == 10
  assert bad['modes_covered'] == 1
  assert bad['mode_kl'] > 2 > 0.1 > good['mode_kl']
  np.testing.assert_allclose(bad['effective_rank'], 1, rtol=1e-3)


def test_same_data_same_weights_other_seed_other_weights(digits, tmp_path):
  hashes = [
    classifier_extractor(
      *_rows(digits), cache_dir=tmp_path / name, seed=seed
    ).hash
    for name, seed in [('a', 0), ('b', 0), ('c', 1)]
  ]
  assert hashes[0] == hashes[1] != hashes[2]


def test_cache_is_used_and_mended(digits, tmp_path, monkeypatch):
  trained = classifier_extractor(*_rows(digits), cache_dir=tmp_path)
  (path,) = tmp_path.iterdir()
  whole = path.read_bytes()

  def refuse(*_):
    raise AssertionError('trained again')

  with monkeypatch.context() as patch:
    patch.setattr(classifier, '_train', refuse)
    again = classifier_extractor(*_rows(digits), cache_dir=tmp_path)
    assert again.hash == trained.hash
  flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
  for damaged in (b'', whole[: len(whole) // 2], flipped):
    path.write_bytes(damaged)
    mended = classifier_extractor(*_rows(digits), cache_dir=tmp_path)
    assert mended.hash == trained.hash
    assert path.read_bytes() == whole
  assert list(tmp_path.iterdir()) == [path]


def test_unwritable_cache_is_a_warning(digits, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('QGAN_JAX_CACHE', str(tmp_path / 'file' / 'cache'))
  with pytest.warns(UserWarning, match='not cached'):
    classifier_extractor(*_rows(digits))


def test_without_labels_it_learns_rotations(digits, tmp_path, monkeypatch):
  monkeypatch.setattr(classifier, '_STEPS', 150)
  extractor = classifier_extractor(
    *_rows(digits, supervised=False), cache_dir=tmp_path
  )
  assert extractor.name == 'rotations-digits'
  assert extractor.accuracy > 0.7
  scores = score(extractor, digits[0], digits[2])
  assert scores['coverage'] > _COVERAGE
  assert 'inception_score_mean' not in scores


def test_of_a_single_class_it_learns_rotations_too(digits, tmp_path):
  train, labels, test, test_labels = digits
  extractors = [
    classifier_extractor(
      'x', train, of_train, test, of_test, classes, cache_dir=tmp_path
    )
    for of_train, of_test, classes in (
      (0 * labels, 0 * test_labels, 1),
      (None, None, 0),
    )
  ]
  assert [extractor.name for extractor in extractors] == ['rotations-x'] * 2
  assert extractors[0].hash == extractors[1].hash
  assert extractors[0].extract(test[:3]).probabilities is None


def test_what_is_not_square_is_mirrored_instead(digits, tmp_path, monkeypatch):
  monkeypatch.setattr(classifier, '_STEPS', 300)
  # Digits with their sides cut off.
  images, test = (x[:, :, 4:-4] for x in (digits[0], digits[2]))
  extractor = classifier_extractor(
    'narrow', images, None, test, None, 0, cache_dir=tmp_path
  )
  assert extractor.name == 'flips-narrow'
  # By chance it were 0.25; several digits are their own mirror images.
  assert extractor.accuracy > 0.5
  assert score(extractor, images, test)['coverage'] > _COVERAGE


def test_an_image_is_turned_in_four_ways_that_keep_its_shape():
  for shape in (3, 3), (2, 3):
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(1, *shape, 1)
    turned = classifier._turn(np.repeat(image, 4, 0), np.arange(4))
    assert len({x.tobytes() for x in turned}) == 4
    ways = {
      np.flip(x, axes).tobytes() if shape[0] != shape[1] else x.tobytes()
      for x in (np.rot90(image[0], k) for k in range(4))
      for axes in ((), 0, 1, (0, 1))
      if x.shape == turned.shape[1:]
    }
    assert {x.tobytes() for x in turned} == ways


def test_person_errors(digits, trained):
  oblong = np.zeros((20, 28, 32, 1), np.uint8)
  with pytest.raises(UserError, match='28x28x1.*28x32x1'):
    score(trained, digits[0], oblong)
  with pytest.raises(UserError, match='at least 10 generated images, and 3'):
    score(trained, digits[0], digits[2][:3])


@pytest.mark.parametrize('shape', [(32, 32, 3), (64, 64, 1)])
def test_any_image_size(shape, tmp_path):
  images = np.random.default_rng(0).integers(
    256, size=(40, *shape), dtype=np.uint8
  )
  extractor = classifier_extractor(
    'x', images, np.arange(40) % 3, images, None, 3, cache_dir=tmp_path
  )
  assert extractor.accuracy is None
  assert extractor.extract(images).features.shape == (40, 128)


@pytest.mark.slow
def test_calibration_on_mnist(tmp_path, monkeypatch):
  if 'TFDS_DATA_DIR' not in os.environ:
    pytest.skip('TFDS_DATA_DIR is not set: no MNIST')
  import tensorflow_datasets as tfds

  monkeypatch.undo()
  images, labels = {}, {}
  for split in ('train', 'test'):
    rows = list(tfds.data_source('mnist', split=split, download=False))
    images[split] = np.stack([row['image'] for row in rows])
    labels[split] = np.array([row['label'] for row in rows])
  extractor = classifier_extractor(
    'mnist',
    *(x[s] for s in ('train', 'test') for x in (images, labels)),
    10,
    cache_dir=tmp_path,
  )
  assert extractor.accuracy > 0.978
  chosen = np.random.default_rng(0).permutation(60_000)[:10_000]
  scores = score(extractor, images['test'], images['train'][chosen])
  print(extractor, scores)
  assert 0.5 < scores['frechet_distance'] < 3
  assert scores['precision'] > 0.7
  assert scores['coverage'] > 0.9


def test_the_cache_of_a_user_without_a_home(monkeypatch, tmp_path):
  """As in a container whose user the system has no name for."""

  def unknown(uid):
    raise KeyError(uid)

  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr(pwd, 'getpwuid', unknown)
  monkeypatch.setenv('QGAN_JAX_CACHE', str(tmp_path))
  assert cache_folder('cache classifiers', 'classifiers') == tmp_path
  monkeypatch.delenv('QGAN_JAX_CACHE')
  with pytest.raises(UserError, match='set QGAN_JAX_CACHE'):
    cache_folder('cache classifiers', 'classifiers')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  expected = tmp_path / 'qgan_jax' / 'classifiers'
  assert cache_folder('cache classifiers', 'classifiers') == expected


@pytest.mark.parametrize('supervised', [True, False])
def test_transparent_images_are_seen_over_grey(
  tmp_path, monkeypatch, supervised
):
  monkeypatch.setattr(classifier, '_CHUNK', 7)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (20, 8, 8, 4), np.uint8)
  labels = rng.integers(0, 2, 20) if supervised else None
  found = [
    classifier_extractor(
      'transparent', x, labels, x, labels, 2, cache_dir=tmp_path
    )
    for x in (over_grey(images), images)
  ]
  assert len(list(tmp_path.iterdir())) == 1  # They have the same digest.
  assert found[0].hash == found[1].hash
  features = [found[0].extract(over_grey(images)), found[1].extract(images)]
  np.testing.assert_array_equal(features[0].features, features[1].features)
