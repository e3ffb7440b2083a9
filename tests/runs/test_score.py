"""What is compared with what: classes, domains and mirrored images."""

import types

import numpy as np
import pytest

from qgan_jax import metrics
from qgan_jax.artifacts import Drawer
from qgan_jax.data import ImageDataset
from qgan_jax.errors import UserError
from qgan_jax.runs import build, score

RNG = np.random.default_rng(0)


def features(images):
  flat = images.reshape(len(images), -1)
  return metrics.Features(flat.astype(np.float32), None)


EXTRACTOR = metrics.Extractor('pixels', '', '', '', None, features)


def config(*, flip=False):
  return types.SimpleNamespace(data=types.SimpleNamespace(flip=flip))


def scored(dataset, draw, *, labels=None, samples=400, flip=False, **kwargs):
  """The scores of a state that draws by `draw(num, labels)`."""
  about = types.SimpleNamespace(labels=labels)
  setup = types.SimpleNamespace(
    config=config(flip=flip),
    dataset=dataset,
    labels_to_draw=lambda num: build.Setup.labels_to_draw(about, num),
    measure=lambda state, seed: {},
    sampler=lambda: lambda state, num, seed, labels: draw(num, labels),
  )
  state = types.SimpleNamespace(step=1)
  return score.score_state(state, setup, EXTRACTOR, samples=samples, **kwargs)


def classes(counts):
  """Images of uneven classes, each of a grey of its own, give or take."""
  labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
  greys = 60 * labels[:, None, None, None] + RNG.integers(
    0, 9, (len(labels), 2, 2, 1)
  )
  return greys.astype(np.uint8), labels


def uneven():
  train, test = classes((300, 60, 40)), classes((300, 60, 40))
  return ImageDataset('greys', *train, *test, 3)


def of_class(labels):
  noise = RNG.integers(0, 9, (len(labels), 2, 2, 1))
  return (60 * labels[:, None, None, None] + noise).astype(np.uint8)


def test_classes_are_drawn_as_often_as_they_are_trained_on():
  dataset, seen = uneven(), []

  def draw(num, labels):
    seen.append(np.bincount(labels).tolist())
    return of_class(labels)

  found = scored(dataset, draw, labels=dataset.train_labels)
  assert seen == [[300, 60, 40]]
  in_turn = scored(dataset, lambda num, _: of_class(np.arange(num) % 3))
  assert found['frechet_distance'] < 1 < in_turn['frechet_distance'] / 100


def test_an_artifact_draws_classes_as_a_state_does(monkeypatch):
  dataset, seen = uneven(), []

  def draw(latents, labels):
    seen.append(labels)
    return of_class(labels) / np.float32(127.5) - 1

  drawer = Drawer(draw, 4, 3, 'none', '')
  monkeypatch.setattr(score.artifacts, 'open_drawer', lambda *_, **__: drawer)
  monkeypatch.setattr(score.inputs, 'check', lambda *_, **__: None)
  monkeypatch.setattr(build, 'load_dataset', lambda *_, **__: dataset)
  monkeypatch.setattr(build, 'make_extractor', lambda *_: EXTRACTOR)
  found = score.score_artifact(
    'x.qgan', config(), samples=400, seed=0, seconds=1
  )
  drawn = np.concatenate(seen)[:400]
  assert np.bincount(drawn).tolist() == [300, 60, 40]
  assert found['frechet_distance'] < 1


def domains(held_out):
  """Unrelated inputs and targets, repeated as `match_domains` does."""
  most = max(held_out)

  def side(count):
    different = RNG.integers(0, 256, (count, 2, 2, 1), np.uint8)
    return different[np.arange(most) % count]

  images = np.concatenate([side(count) for count in held_out], -1)
  return ImageDataset(
    'domains',
    images,
    None,
    images,
    None,
    0,
    input_channels=1,
    domains=(*held_out, *held_out),
  )


@pytest.mark.parametrize('held_out', [(200, 30), (30, 200)])
def test_a_perfect_translation_of_unequal_domains_scores_well(held_out):
  dataset = domains(held_out)
  assert len(dataset.test_inputs) == held_out[0]

  def draw(num, _):
    count = min(num, len(dataset.test_inputs))
    return RNG.integers(0, 256, (count, 2, 2, 1), np.uint8)

  found = scored(dataset, draw)
  assert found['num_real'] == held_out[1]
  for name in ('precision', 'recall', 'coverage'):
    assert found[name] > 0.7


def test_pictures_of_a_domain_count_once():
  with pytest.raises(UserError, match='at least 10 held-out .* there are 4'):
    score.check_samples(100, domains((200, 4)))
  with pytest.raises(UserError, match='at least 10 held-out .* there are 4'):
    score.check_samples(100, domains((4, 200)))


def test_mirrored_copies_are_copies_where_training_mirrors(tmp_path, capsys):
  train, test = (RNG.integers(0, 256, (80, 4, 4, 1), np.uint8) for _ in 'ab')
  dataset = ImageDataset('noise', train, None, test, None, 0)

  def draw(num, _):
    copies = train[RNG.integers(0, 80, num)]
    copies[::2] = copies[::2, :, ::-1]
    return copies

  def copied(flip):
    path = str(tmp_path / 'x.png')
    found = scored(dataset, draw, flip=flip, samples=100, nearest=path)
    return found['data_copying']

  assert copied(flip=True) == 1
  assert copied(flip=False) < 0.9
  assert 'x.png' in capsys.readouterr().err
