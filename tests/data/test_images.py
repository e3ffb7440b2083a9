import numpy as np
from PIL import Image
import pytest

from qgan_jax.data import images


def _picture(array, mode=None):
  picture = Image.fromarray(np.asarray(array))
  return picture if mode is None else picture.convert(mode)


@pytest.mark.parametrize('shape', [(9, 9), (9, 9, 3)])
def test_the_right_size_keeps_every_bit(shape):
  pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  got = images.to_array(_picture(pixels), image_size=9)
  np.testing.assert_array_equal(got, pixels.reshape(9, 9, -1))


@pytest.mark.parametrize(('height', 'width'), [(8, 20), (20, 8), (8, 9)])
def test_the_crop_is_the_centre_square(height, width):
  pixels = np.random.default_rng(1).integers(0, 256, (height, width), np.uint8)
  top, left = (height - 8) // 2, (width - 8) // 2
  np.testing.assert_array_equal(
    images.to_array(_picture(pixels), image_size=8)[..., 0],
    pixels[top : top + 8, left : left + 8],
  )


@pytest.mark.parametrize('fit', ['crop', 'pad', 'stretch'])
@pytest.mark.parametrize('size', [(12, 8), (8, 12)])
def test_the_right_size_that_is_not_square_keeps_every_bit(fit, size):
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  for art in False, True:
    got = images.to_array(
      _picture(pixels), image_size=size, fit=fit, pixel_art=art
    )
    np.testing.assert_array_equal(got, pixels)


def test_the_crop_has_the_proportions_of_the_result():
  pixels = np.random.default_rng(1).integers(0, 256, (60, 40), np.uint8)
  # Of 60×40 for 24×48, the largest part of these proportions is 20×40.
  got = images.to_array(_picture(pixels), image_size=(24, 48))
  part = _picture(pixels[20:40]).resize((48, 24), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(got[..., 0], np.asarray(part))


def test_what_is_padded_keeps_its_proportions():
  pixels = np.full((20, 20, 4), 255, np.uint8)
  got = images.to_array(_picture(pixels), image_size=(48, 32), fit='pad')
  assert got.shape == (48, 32, 3)
  pixels[0, 0] = 0  # Some of it is transparent: so is what is added.
  got = images.to_array(_picture(pixels), image_size=(48, 32), fit='pad')
  assert (got[:8] == 0).all() and (got[-8:] == 0).all()
  assert (got[12:36, 4:] == 255).all()


def test_pixel_art_is_scaled_by_a_whole_number_into_what_is_not_square():
  art = np.random.default_rng(1).integers(0, 2, (16, 16), np.uint8) * 255
  got = images.to_array(
    _picture(art), image_size=(48, 36), fit='pad', pixel_art=True
  )[..., 0]
  twice = art.repeat(2, 0).repeat(2, 1)
  np.testing.assert_array_equal(got[8:40, 2:34], twice)


@pytest.mark.parametrize('fit', ['crop', 'pad', 'stretch'])
@pytest.mark.parametrize('shape', [(1, 300), (300, 1), (31, 47), (64, 64)])
def test_any_shape_fits_into_any_other(fit, shape):
  pixels = np.full(shape, 9, np.uint8)
  for size in (48, 32), (16, 256):
    for art in False, True:
      got = images.to_array(
        _picture(pixels), image_size=size, fit=fit, pixel_art=art
      )
      assert got.shape == (*size, 1)
      assert (got == 9).all()


def test_nothing_outside_the_crop_bleeds_in():
  pixels = np.full((16, 48), 255, np.uint8)
  pixels[:, 16:32] = 7
  assert (images.to_array(_picture(pixels), image_size=4) == 7).all()


def test_shrinking_is_antialiased():
  # One-pixel stripes are grey from afar; picking pixels would give stripes.
  stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
  small = images.to_array(_picture(stripes), image_size=8)[1:-1, 1:-1]
  assert abs(small.astype(int) - 127.5).max() < 8


def _half_transparent_red():
  return np.array([[[255, 0, 0, 0], [255, 0, 0, 255]]] * 2, np.uint8)


@pytest.mark.parametrize(
  ('picture', 'expected'),
  [
    (
      _picture(np.array([[0, 65535], [257, 25700]], np.uint16)),
      [[[0], [255]], [[1], [100]]],
    ),
    (
      _picture(np.array([[0, 65535], [257, 25700]], np.int32)),
      [[[0], [255]], [[1], [100]]],
    ),
    (_picture(np.eye(2, dtype=bool)), [[[255], [0]], [[0], [255]]]),
    (_picture(_half_transparent_red()), [[[255, 255, 255], [255, 0, 0]]] * 2),
    (_picture(_half_transparent_red(), 'LA'), [[[255], [76]]] * 2),
    (_picture(_half_transparent_red()[..., :3], 'P'), [[[255, 0, 0]] * 2] * 2),
    (
      _picture(np.full((2, 2, 3), 255, np.uint8), 'CMYK'),
      [[[255] * 3] * 2] * 2,
    ),
  ],
  ids=['16 bit', '32 bit', '1 bit', 'RGBA', 'LA', 'palette', 'CMYK'],
)
def test_every_mode_becomes_eight_bits(picture, expected):
  got = images.to_array(picture, image_size=2, channels=np.shape(expected)[-1])
  assert got.dtype == np.uint8
  np.testing.assert_array_equal(got, expected)


def test_a_palette_entry_can_be_transparent():
  picture = _picture(_half_transparent_red()[..., :3], 'P')
  picture.info['transparency'] = picture.getpixel((0, 0))
  assert (images.to_array(picture, image_size=2, channels=3) == 255).all()
  assert (images.to_array(picture, image_size=2) == 0).all()


def test_colours_are_multiplied_by_alpha():
  pixels = np.random.default_rng(3).integers(0, 256, (9, 9, 4), np.uint8)
  got = images.to_array(_picture(pixels), image_size=9)
  wide = pixels.astype(float)
  expected = np.round(wide[..., :3] * wide[..., 3:] / 255)
  np.testing.assert_array_equal(got[..., :3], expected)
  np.testing.assert_array_equal(got[..., 3], pixels[..., 3])


@pytest.mark.parametrize('size', [8, 5, 20])
def test_colour_that_cannot_be_seen_does_not_matter(size):
  pixels = np.random.default_rng(4).integers(0, 256, (8, 8, 4), np.uint8)
  pixels[2:6, 2:6, 3] = 0
  other = pixels.copy()
  other[2:6, 2:6, :3] = 255 - other[2:6, 2:6, :3]
  got, again = (
    images.to_array(_picture(x), image_size=size) for x in (pixels, other)
  )
  np.testing.assert_array_equal(got, again)
  assert (got[..., :3] <= got[..., 3:]).all()


def test_an_alpha_channel_without_transparency_is_dropped():
  pixels = np.full((4, 4, 4), 255, np.uint8)
  assert images.to_array(_picture(pixels), image_size=4).shape[-1] == 3
  grey = _picture(pixels, 'LA')
  assert images.to_array(grey, image_size=4).shape[-1] == 1
  assert images.to_array(grey, image_size=4, channels=4).tolist() == (
    np.full((4, 4, 4), 255).tolist()
  )


def test_16_bit_grey_can_have_a_transparent_value(tmp_path):
  values = np.array([[0, 65535], [257, 25700]], np.uint16)
  Image.fromarray(values).save(tmp_path / 'a.png', transparency=25700)
  with Image.open(tmp_path / 'a.png') as picture:
    assert picture.mode == 'I;16'
    got = images.to_array(picture, image_size=2)
    flat = images.to_array(picture, image_size=2, channels=1)
  assert got.tolist() == [
    [[0, 0, 0, 255], [255] * 4], [[1, 1, 1, 255], [0] * 4]
  ]  # fmt: skip
  assert flat[..., 0].tolist() == [[0, 255], [1, 255]]


def test_missing_channels_are_opaque_and_grey():
  grey, rgb = np.full((2, 2, 1), 7, np.uint8), np.full((2, 2, 3), 7, np.uint8)
  assert images.with_channels(grey, 4)[0, 0].tolist() == [7, 7, 7, 255]
  assert images.with_channels(rgb, 4)[0, 0].tolist() == [7, 7, 7, 255]
  assert images.with_channels(grey, 3)[0, 0].tolist() == [7, 7, 7]


def test_channels_can_be_forced():
  grey = np.array([[[10], [200]], [[30], [40]]], np.uint8)
  colour = images.resize_all(grey[None], image_size=2, channels=3)
  np.testing.assert_array_equal(colour, np.repeat(grey[None], 3, axis=-1))
  # ITU-R 601-2, as Pillow documents it.
  rgb = np.array([[[[200, 100, 50]]]], np.uint8)
  luma = images.resize_all(rgb, image_size=1, channels=1)
  assert luma.item() == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


@pytest.mark.parametrize('mode', ['F', 'I'])
def test_values_without_a_range_are_refused(mode):
  with pytest.raises(ValueError, match='values'):
    images.to_array(
      _picture(np.full((2, 2), 70_000, np.int32), mode), image_size=2
    )


def _noise(height, width, channels=3):
  rng = np.random.default_rng(height * width)
  shape = (height, width, channels)
  return rng.integers(0, 256, shape, np.uint8)


def test_padding_keeps_all_of_a_picture():
  wide = _noise(4, 8)
  got = images.to_array(_picture(wide), image_size=8, fit='pad')
  np.testing.assert_array_equal(got[2:6], wide)
  np.testing.assert_array_equal(got[[0, 1, 6, 7]], wide[[0, 0, 3, 3]])
  tall = _noise(8, 3, 4)
  tall[..., 3] = 255
  tall[0, 0, 3] = 7
  got = images.to_array(_picture(tall), image_size=8, fit='pad')
  assert (got[:, 2:5, 3] == tall[..., 3]).all()
  assert not got[:, [0, 1, 5, 6, 7]].any()
  # A line of one pixel stays one where it would become less.
  line = _picture(np.full((200, 1), 9, np.uint8))
  assert (images.to_array(line, image_size=16, fit='pad') == 9).all()


def test_stretching_changes_proportions():
  gradient = np.tile(np.arange(32, dtype=np.uint8) * 8, (8, 1))
  got = images.to_array(_picture(gradient), image_size=8, fit='stretch')[..., 0]
  expected = _picture(gradient).resize((8, 8), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(got, expected)
  assert got[0, 0] < 32 < 224 <= got[0, -1] + 8


@pytest.mark.parametrize('fit', ['crop', 'pad', 'stretch'])
def test_pixel_art_is_enlarged_by_whole_numbers(fit):
  art = _noise(5, 5)
  got = images.to_array(_picture(art), image_size=17, fit=fit, pixel_art=True)
  expected = art.repeat(3, 0).repeat(3, 1)
  np.testing.assert_array_equal(got[1:16, 1:16], expected)
  np.testing.assert_array_equal(got[0, 1:16], expected[0])
  np.testing.assert_array_equal(got[16, 1:16], expected[-1])


def test_pixel_art_that_is_no_square():
  art = _noise(4, 8)

  def fitted(fit):
    return images.to_array(
      _picture(art), image_size=16, fit=fit, pixel_art=True
    )

  twice = art.repeat(2, 0).repeat(2, 1)
  np.testing.assert_array_equal(fitted('pad')[4:12], twice)
  np.testing.assert_array_equal(fitted('stretch'), twice.repeat(2, 0))
  np.testing.assert_array_equal(
    fitted('crop'), art[:, 2:6].repeat(4, 0).repeat(4, 1)
  )


def test_enlarged_pixel_art_is_reduced_to_what_it_was():
  art = _noise(8, 8)
  large = _picture(art.repeat(4, 0).repeat(4, 1))
  got = images.to_array(large, image_size=8, pixel_art=True)
  np.testing.assert_array_equal(got, art)
  assert (images.to_array(large, image_size=8) != art).any()
  # 32 pixels are no whole number of times 12.
  np.testing.assert_array_equal(
    images.to_array(large, image_size=12, pixel_art=True),
    images.to_array(large, image_size=12),
  )


@pytest.mark.parametrize(
  ('shape', 'scale'), [((16, 11), 2), ((4, 3), 10), ((9, 6), 5)]
)
def test_pixels_of_pixel_art_stay_square(shape, scale):
  art = _noise(*shape)
  got = images.to_array(_picture(art), image_size=(48, 32), pixel_art=True)
  large = art.repeat(scale, 0).repeat(scale, 1)
  height, width = large.shape[:2]
  top, left = (48 - height) // 2, (32 - width) // 2
  inside = got[top : top + height, left : left + width]
  np.testing.assert_array_equal(inside, large)


def test_fine_lines_are_not_pixel_art_to_be_reduced():
  drawing = np.full((64, 64), 255, np.uint8)
  drawing[:, 30:33] = 0
  got = images.to_array(_picture(drawing), image_size=8, pixel_art=True)
  np.testing.assert_array_equal(
    got, images.to_array(_picture(drawing), image_size=8)
  )
  assert len(np.unique(got)) > 2
