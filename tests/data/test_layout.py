import pytest

from qgan_jax.data.layout import layout_of
from qgan_jax.errors import UserError


def _layout(*paths):
  return layout_of([tuple(path.split('/')) for path in paths])


def test_folders_are_classes():
  found = _layout('bee/1', 'ant/1', 'bee/deep/2')
  assert found.class_names == ('ant', 'bee')
  assert found.labels.tolist() == [1, 0, 1]
  assert found.splits is None


@pytest.mark.parametrize(
  'paths', [('a', 'b'), ('all/a', 'all/b'), ('ant/a', 'b'), ('a/b/c', 'a/d')]
)
def test_no_classes(paths):
  found = _layout(*paths)
  assert (found.labels, found.class_names) == (None, ())


def test_numbers_are_in_their_order():
  assert _layout('10/a', '9/a', '1/a').class_names == ('1', '9', '10')
  assert _layout('10/a', '9/a', 'x/a').class_names == ('10', '9', 'x')


def test_a_folder_around_all_is_looked_through():
  found = _layout('pictures/v2/ant/1', 'pictures/v2/bee/1')
  assert found.class_names == ('ant', 'bee')
  found = _layout('pictures/train/1', 'pictures/test/1')
  assert found.splits == ('train', 'test')


@pytest.mark.parametrize('other', ['test', 'val', 'valid', 'Validation'])
def test_a_split_above_classes(other):
  found = _layout('Train/ant/1', 'Train/bee/1', f'{other}/bee/1')
  assert found.splits == ('train', 'train', 'test')
  assert found.class_names == ('ant', 'bee')
  assert found.labels.tolist() == [0, 1, 1]


def test_validation_beside_a_test_is_not_used():
  found = _layout('train/1', 'val/1', 'test/1')
  assert found.splits == ('train', 'unused', 'test')
  assert found.labels is None


@pytest.mark.parametrize(
  'paths',
  [
    ('ant/a', 'bee/a', 'preview.png'),
    ('train/ant/a', 'train/bee/a', 'train/preview.png', 'test/ant/a'),
  ],
)
def test_a_picture_beside_classes_is_named(paths, caplog):
  assert _layout(*paths).labels is None
  assert '1 picture(s) lie beside the folders' in caplog.text
  assert "'ant', 'bee', such as 'preview.png'" in caplog.text


def test_a_picture_beside_a_split_is_refused():
  with pytest.raises(
    UserError, match=r"'test', 'train', such as 'preview.png'"
  ):
    _layout('data/train/a', 'data/test/a', 'data/preview.png')


def test_what_is_no_split(caplog):
  # A class may be called `test`.
  assert _layout('train/1', 'test/1', 'plane/1').splits is None
  assert "'plane', 'test', 'train' are taken for classes" in caplog.text
  assert _layout('train/1', 'train/2').splits is None
  assert _layout('val/1', 'test/1').splits is None
  assert _layout('train', 'test/1').splits is None


def test_names_in_any_script_and_in_none():
  found = _layout('b\udcff/1', 'кот/1', '猫/1')
  assert found.class_names == ('b\ufffd', 'кот', '猫')
