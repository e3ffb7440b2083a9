import io
import os
import tarfile
import zipfile

from PIL import Image
import pytest

from qgan_jax import data
from qgan_jax.data import picture_files
from qgan_jax.errors import UserError


def _png(value=0):
  file = io.BytesIO()
  Image.new('L', (6, 6), value).save(file, 'PNG')
  return file.getvalue()


def _found(path):
  with picture_files.opened(str(path)) as source:
    contents = {'/'.join(file.parts): file.read() for file in source}
  return contents, source.ignored


def _write(root, files):
  for name, content in files.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


def _zip(path, files):
  with zipfile.ZipFile(path, 'w') as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return path


def _tar(path, files):
  with tarfile.open(path, 'w:gz' if path.suffix == '.gz' else 'w') as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return path


FILES = {
  'ant/1.png': _png(1),
  'ant/.hidden.png': _png(),
  '__MACOSX/ant/1.png': _png(),
  'bee/ü.png': _png(2),
  'bee/no_extension': _png(3),
  'bee/lies.txt': _png(4),
  'notes.txt': b'no picture',
  'empty': b'',
}
PICTURES = {
  name: FILES[name]
  for name in ('ant/1.png', 'bee/ü.png', 'bee/no_extension', 'bee/lies.txt')
}


def test_a_folder_and_archives_hold_the_same(tmp_path):
  _write(tmp_path / 'folder', FILES)
  for path in (
    tmp_path / 'folder',
    _zip(tmp_path / 'a.zip', FILES),
    _tar(tmp_path / 'a.tar', FILES),
    _tar(tmp_path / 'a.tar.gz', FILES),
  ):
    found, ignored = _found(path)
    assert found == PICTURES
    assert sorted(ignored) == ['empty', 'notes.txt']
  assert not {path.name for path in tmp_path.iterdir()} - {
    'folder', 'a.zip', 'a.tar', 'a.tar.gz'
  }  # fmt: skip


def test_the_data_of_an_archive_are_those_of_its_folder(tmp_path):
  _write(tmp_path / 'folder', FILES)
  archive = _tar(tmp_path / 'a.tar.gz', FILES)
  folder, packed = (
    data.load(f'folder:{path}', image_size=6)
    for path in (tmp_path / 'folder', archive)
  )
  assert (folder.train_images == packed.train_images).all()
  assert (folder.train_labels == packed.train_labels).all()
  assert packed.num_classes == 2


def test_a_tar_may_end_with_a_zip(tmp_path):
  inner = _zip(tmp_path / 'labels.zip', {'labels.csv': b'1,ant'})
  files = {**FILES, 'labels.zip': inner.read_bytes()}
  found, ignored = _found(_tar(tmp_path / 'a.tar', files))
  assert found == PICTURES
  assert sorted(ignored) == ['empty', 'labels.zip', 'notes.txt']


@pytest.mark.parametrize('make', [_zip, _tar])
def test_names_that_lead_outside_are_ignored(tmp_path, make):
  outside = ('../out.png', '/abs.png', 'a/../../b.png', 'a/../c.png')
  path = tmp_path / ('a.zip' if make is _zip else 'a.tar')
  make(path, {'./in.png': _png(), **dict.fromkeys(outside, _png())})
  found, ignored = _found(path)
  assert list(found) == ['in.png']
  assert sorted(ignored) == sorted(outside)


def test_no_link_leads_out_of_an_archive(tmp_path):
  (tmp_path / 'secret.png').write_bytes(_png())
  with tarfile.open(tmp_path / 'a.tar', 'w') as archive:
    for name, kind in (('s.png', tarfile.SYMTYPE), ('h.png', tarfile.LNKTYPE)):
      member = tarfile.TarInfo(name)
      member.type, member.linkname = kind, str(tmp_path / 'secret.png')
      archive.addfile(member)
  assert _found(tmp_path / 'a.tar') == ({}, ['s.png', 'h.png'])
  info = zipfile.ZipInfo('s.png')
  info.external_attr = 0o120777 << 16
  _zip(tmp_path / 'a.zip', {info: str(tmp_path / 'secret.png')})
  assert _found(tmp_path / 'a.zip') == ({}, ['s.png'])


@pytest.mark.parametrize('name', ['a.zip', 'a.tar', 'a.tar.gz'])
def test_what_an_archive_may_hold_is_bounded(tmp_path, name, monkeypatch):
  make = _zip if name == 'a.zip' else _tar
  path = make(tmp_path / name, {'a.png': _png(), 'b': bytes(10_000)})
  monkeypatch.setattr(picture_files, '_MOST_IN_ARCHIVE', 10_000)
  with pytest.raises(UserError, match='unpacks to more than'):
    _found(path)


@pytest.mark.parametrize('name', ['a.zip', 'a.tar.gz', 'folder'])
def test_a_huge_file_is_not_read_into_memory(tmp_path, name, monkeypatch):
  monkeypatch.setattr(picture_files, '_MOST_IN_FILE', 1000)
  files = {'a.png': _png(), 'b.png': _png(1), 'huge.png': bytes(1001)}
  if name == 'folder':
    _write(tmp_path / name, files)
  else:
    (_zip if name == 'a.zip' else _tar)(tmp_path / name, files)
  found = data.load(f'folder:{tmp_path / name}', image_size=6)
  assert len(found.train_images) + len(found.test_images) == 2


@pytest.mark.parametrize('name', ['a.zip', 'a.tar', 'a.tar.gz'])
def test_damaged_archives(tmp_path, name):
  make = _zip if name == 'a.zip' else _tar
  noise = os.urandom(20_000)
  path = make(tmp_path / name, {'b.bin': noise, 'a.png': _png()})
  path.write_bytes(path.read_bytes()[:10_000])
  with pytest.raises(UserError, match='cannot be read to its end.*copy it ag'):
    _found(path)


def test_what_is_neither_a_folder_nor_an_archive(tmp_path, monkeypatch):
  (tmp_path / 'a.png').write_bytes(_png())
  with pytest.raises(UserError, match='a.png. is neither a folder of images'):
    _found(tmp_path / 'a.png')
  # A relative path is looked for in the folder that is told.
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=f"folder 'b' in {tmp_path}, and no .zip"):
    _found('b')


def test_links_to_folders_are_followed_once(tmp_path):
  _write(tmp_path, {'far/cat/1.png': _png(1), 'near/dog/2.png': _png(2)})
  near = tmp_path / 'near'
  (near / 'cat').symlink_to(tmp_path / 'far' / 'cat')
  (near / 'a_dog').symlink_to(near / 'dog')
  (near / 'dog' / 'loop').symlink_to(near)
  (near / 'dog' / 'linked.png').symlink_to(tmp_path / 'far' / 'cat' / '1.png')
  found, _ = _found(near)
  assert sorted(found) == ['cat/1.png', 'dog/2.png', 'dog/linked.png']
  (tmp_path / 'link').symlink_to(near)
  assert _found(tmp_path / 'link')[0] == found


def test_pipes_and_dead_links_are_passed_over(tmp_path):
  _write(tmp_path, {'a.png': _png()})
  os.mkfifo(tmp_path / 'pipe.png')
  (tmp_path / 'dead.png').symlink_to('/dev/null')
  (tmp_path / 'gone.png').symlink_to(tmp_path / 'nothing')
  found, ignored = _found(tmp_path)
  assert list(found) == ['a.png']
  assert ignored == ['dead.png', 'gone.png', 'pipe.png']
  with pytest.raises(UserError, match=r'no \.zip'):
    _found(tmp_path / 'pipe.png')


def test_archives_are_looked_for_without_reading_them(tmp_path):
  path = _zip(tmp_path / 'a.zip', {'a.png': b'not one, as loading would find'})
  data.check(f'folder:{path}')
  _zip(path, {'a.txt': b'no picture'})
  with pytest.raises(UserError, match='holds no images'):
    data.check(f'folder:{path}')


def test_a_member_that_is_the_folder_itself_is_ignored(tmp_path):
  _tar(tmp_path / 'a.tar', {'.': b'', 'in.png': _png()})
  found, ignored = _found(tmp_path / 'a.tar')
  assert list(found) == ['in.png']
  assert ignored == ['.']
