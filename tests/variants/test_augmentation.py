"""Augmentations against their definitions, in float64 and image by image."""

import jax
import numpy as np
import pytest
from scipy import ndimage, special
from scipy.spatial.transform import Rotation

from qgan_jax.variants import augmentation
from qgan_jax.variants.augmentation import AUGMENTATIONS

BATCH = 24
# Where ADA's numbers lie: of a change, its values and then its chance.
PLACES = {
  'flip': slice(0, 2), 'quarters': slice(2, 4), 'whole': slice(4, 7),
  'size': slice(7, 9), 'first': slice(9, 11), 'stretch': slice(11, 13),
  'second': slice(13, 15), 'part': slice(15, 18), 'brightness': slice(18, 20),
  'contrast': slice(20, 22), 'negative': slice(22, 24), 'hue': slice(24, 26),
  'saturation': slice(26, 28),
}  # fmt: skip

# With the compiler of those who train: without its fusion emitters, which other
# tests do without, images that nothing changes differ in their last digits.
apply = {
  name: jax.jit(
    each.apply, compiler_options={'xla_cpu_use_fusion_emitters': True}
  )
  for name, each in AUGMENTATIONS.items()
}


def given(name, channels=3, height=9, width=8):
  """(images, numbers), of multiples of 2⁻²³ as JAX draws them."""
  rng = np.random.default_rng(channels)
  images = rng.uniform(-1, 1, (BATCH, height, width, channels))
  numbers = rng.integers(0, 2**23, (BATCH, AUGMENTATIONS[name].numbers))
  return images.astype('float32'), (numbers / 2**23).astype('float32')


def diffaugment(image, u):
  """One image [H, W, C], by the code of DiffAugment's authors."""
  colors = {1: 1, 2: 1, 3: 3, 4: 3}[image.shape[-1]]
  image = image.copy()
  x = image[..., :colors] + u[0] - 0.5
  mean = x.mean(2, keepdims=True)
  x = (x - mean) * 2 * u[1] + mean
  image[..., :colors] = (x - x.mean()) * (u[2] + 0.5) + x.mean()

  height, width = sides = image.shape[:2]
  most = [int(0.125 * side + 0.5) for side in sides]
  down, right = (
    int(u[3 + i] * (2 * shift + 1)) - shift for i, shift in enumerate(most)
  )
  moved = np.zeros_like(image)
  for y in range(height):
    for x in range(width):
      if 0 <= y + down < height and 0 <= x + right < width:
        moved[y, x] = image[y + down, x + right]

  cut = []
  for place, side in zip(u[5:], sides, strict=True):
    size = int(0.5 * side + 0.5)
    start = int(place * (side + 1 - size % 2)) - size // 2
    cut.append(np.clip(np.arange(start, start + size), 0, side - 1))
  moved[np.ix_(*cut)] = 0
  return moved


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_diffaugment_is_that_of_its_authors(channels):
  images, numbers = given('diffaugment', channels)
  got = apply['diffaugment'](images, numbers, 1.0)
  for image, u, found in zip(
    images.astype('float64'), numbers.astype('float64'), got, strict=True
  ):
    np.testing.assert_allclose(found, diffaugment(image, u), atol=1e-6)


def translation(x, y):
  return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def rotation(angle):
  c, s = np.cos(angle), np.sin(angle)
  return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def changed(u, p, name, draw, chance=None):
  """What a change of ADA has drawn, or zeros."""
  *values, gate = u[PLACES[name]]
  chosen = gate < (p if chance is None else chance)
  return np.array([draw(value) if chosen else 0.0 for value in values])


def normal(u):
  return special.ndtri(u + 2.0**-24)


def ada(image, u, p):
  """One image, by the matrices of 2006.06676, appendix B."""
  height, width, channels = image.shape
  size = np.array([width, height])

  def turn(name):
    chance = 1 - np.sqrt(1 - p)
    return rotation(
      -changed(u, p, name, lambda v: np.pi * (2 * v - 1), chance)[0]
    )

  mirrored = changed(u, p, 'flip', lambda v: np.floor(2 * v))[0]
  quarters = changed(u, p, 'quarters', lambda v: np.floor(4 * v))[0]
  whole = changed(u, p, 'whole', lambda v: (2 * v - 1) * 0.125)
  scale = np.exp2(0.2 * changed(u, p, 'size', normal)[0])
  stretch = np.exp2(0.2 * changed(u, p, 'stretch', normal)[0])
  part = changed(u, p, 'part', normal) * 0.125
  # From where a pixel was to where it goes: the first change on the right.
  forward = np.linalg.multi_dot(
    [
      translation(*(part * size)),
      turn('second'),
      np.diag([stretch, 1 / stretch, 1]),
      turn('first'),
      np.diag([scale, scale, 1]),
      translation(*np.round(whole * size)),
      rotation(-np.pi / 2 * quarters),
      np.diag([1 - 2 * mirrored, 1, 1]),
    ]
  )
  y, x = np.mgrid[:height, :width] - (np.array([[[height]], [[width]]]) - 1) / 2
  places = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
  came = (np.linalg.inv(forward) @ places)[1::-1]
  came += (np.array([[height], [width]]) - 1) / 2
  image = np.stack(
    [
      ndimage.map_coordinates(image[..., c], came, order=1, mode='mirror')
      for c in range(channels)
    ],
    -1,
  )

  v = np.array([1, 1, 1, 0]) / np.sqrt(3)
  brightness = 0.2 * changed(u, p, 'brightness', normal)[0]
  contrast = np.exp2(0.5 * changed(u, p, 'contrast', normal)[0])
  negative = changed(u, p, 'negative', lambda v: np.floor(2 * v))[0]
  hue = changed(u, p, 'hue', lambda v: np.pi * (2 * v - 1))[0]
  saturation = np.exp2(changed(u, p, 'saturation', normal)[0])
  color = np.eye(4)
  color[:3, 3] = brightness
  color = np.diag([contrast] * 3 + [1]) @ color
  color = (np.eye(4) - 2 * negative * np.outer(v, v)) @ color
  if channels > 2:
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_rotvec(hue * v[:3]).as_matrix()
    grey = np.outer(v, v)
    color = (grey + saturation * (np.eye(4) - grey)) @ turned @ color
    image[:, :3] = image[:, :3] @ color[:3, :3].T + color[:3, 3]
  else:
    row = color[:3].mean(0)
    image[:, 0] = image[:, 0] * row[:3].sum() + row[3]
  return image.reshape(height, width, channels)


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_ada_is_that_of_its_paper(channels):
  images, numbers = given('ada', channels)
  for p in (0.3, 1.0):
    got = apply['ada'](images, numbers, p)
    for image, u, found in zip(
      images.astype('float64'), numbers.astype('float64'), got, strict=True
    ):
      expected = ada(image, u, np.float64(np.float32(p)))
      scale = np.abs(expected).max()
      np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
  # Without a chance, to the last digit.
  np.testing.assert_array_equal(apply['ada'](images, numbers, 0.0), images)


def test_flips_and_quarter_turns_move_whole_pixels():
  images, _ = given('ada', height=8, width=8)
  numbers = np.full((BATCH, 28), 0.999, 'float32')
  for turns in range(4):
    for mirrored in (False, True):
      numbers[:, PLACES['flip']] = 0.75, 0.0 if mirrored else 0.999
      numbers[:, PLACES['quarters']] = turns / 4, 0.0
      start = images[:, :, ::-1] if mirrored else images
      np.testing.assert_array_equal(
        apply['ada'](images, numbers, 0.5), np.rot90(start, turns, (1, 2))
      )


@pytest.mark.parametrize('name', ['diffaugment', 'ada'])
def test_gradients_go_back_the_way_that_images_came(name):
  """An affine map A has ⟨A(x) − A(0), y⟩ = ⟨x, Aᵀ y⟩."""
  images, numbers = given(name)
  there = np.random.default_rng(0).normal(size=images.shape).astype('float32')

  @jax.jit
  def both(x):
    changed, back = jax.vjp(
      lambda x: AUGMENTATIONS[name].apply(x, numbers, 0.7), x
    )
    return changed, back(there)[0]

  changed, back = both(images)
  difference = changed - apply[name](np.zeros_like(images), numbers, 0.7)
  axes = (1, 2, 3)
  one = np.sum(np.asarray(difference * there), axes)
  other = np.sum(np.asarray(images * back), axes)
  np.testing.assert_allclose(one, other, atol=1e-3)
  assert np.abs(one).max() > 1


class Alone:
  """Draws as one device does."""

  def draw(self, draw, key, shape):
    return draw(key, (BATCH, *shape))


def test_half_of_the_images_are_mirrored_and_nothing_else_changes():
  images, _ = given('ada')
  batch = {'images': images, 'labels': np.arange(BATCH)}
  mirrored = np.zeros(BATCH)
  for seed in range(50):
    got = augmentation.mirror(Alone(), batch, jax.random.PRNGKey(seed))
    assert got['labels'] is batch['labels']
    for i in range(BATCH):
      turned = bool((got['images'][i] == images[i, :, ::-1]).all())
      assert turned != bool((got['images'][i] == images[i]).all())
      mirrored[i] += turned
  # Within four standard deviations, for each image by itself.
  assert np.all(np.abs(mirrored - 25) < 4 * np.sqrt(12.5))


def test_the_probability_follows_the_signs_of_four_steps():
  """p ← p + sign(r_t − target) · batch · 4 / images, in float64."""
  images, batch, target = 1000, 10, 0.6
  rng = np.random.default_rng(0)
  fixed = {'augment_target': np.float32(target), 'augment_images': images}
  numbers = {k: np.float32(v) for k, v in augmentation.ADAPTED.items()}
  step = jax.jit(augmentation.adapt, static_argnums=2)
  p, signs, met = 0.0, [], set()
  for i in range(400):
    # First D overfits; later it does not.
    likely = 0.95 if i < 200 else 0.6
    signs.append(np.where(rng.random(batch) < likely, 1, -1))
    mean = np.float32(signs[-1].mean())
    numbers = step({**numbers, **fixed}, {'d_real_sign': mean}, batch)
    if len(signs) == 4:
      p += np.sign(np.mean(signs) - target) * batch * 4 / images
      p, signs = min(max(p, 0.0), 1.0), []
    met.add(float(numbers['augment_p']))
    np.testing.assert_allclose(numbers['augment_p'], p, atol=1e-5)
  assert {0.0, 1.0} <= met
