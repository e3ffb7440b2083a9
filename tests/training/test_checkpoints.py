from pathlib import Path
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax.errors import UserError
from qgan_jax.training import checkpoints as checkpoints_module
from qgan_jax.training.checkpoints import Checkpoints


def _state(step):
  rng = np.random.default_rng(step)
  return {
    'params': {
      'Conv_0': {'kernel': rng.standard_normal((9, 999)).astype('float32')},
      'half': rng.standard_normal(7).astype(jnp.bfloat16),
    },
    'optimizer': (
      np.int32(step),
      [rng.random(5) < 0.5, np.zeros((0, 3), 'int8')],
    ),
    'key': jax.random.PRNGKey(step),
    'bits': np.array([8, 4], np.int32),
    'odd': np.array([np.nan, -0.0, np.inf], np.float32),
  }


def _assert_same(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert type(a) is np.ndarray
    b = np.asarray(b)
    assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def _run(code, *args):
  header = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from test_checkpoints import *
    from test_checkpoints import _assert_same, _state
  """
  code = textwrap.dedent(header) + textwrap.dedent(code)
  return subprocess.Popen(
    [sys.executable, '-c', code, *map(str, args)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_every_leaf_comes_back_bit_for_bit_as_numpy(tmp_path):
  Checkpoints(tmp_path).save(12, _state(12))
  abstract = jax.eval_shape(lambda: _state(0))
  for like in (_state(0), abstract):
    step, state = Checkpoints(tmp_path, primary=False).restore_latest(like)
    assert step == 12
    _assert_same(state, _state(12))


def test_the_newest_are_kept_and_the_best_beside_them(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  assert checkpoints.restore_latest(_state(0)) is None
  assert checkpoints.restore_best(_state(0)) is None
  scores = {10: 5.0, 20: float('nan'), 30: 3.0, 40: 3.0, 50: 4.0}
  kept = []
  for step, score in scores.items():
    checkpoints.save(step, _state(step))
    if checkpoints.save_best(step, _state(step), score):
      kept.append(step)
  assert kept == [10, 30]
  assert checkpoints.steps == (40, 50)
  again = Checkpoints(tmp_path, keep=2)
  assert not again.save_best(60, _state(60), 3.5)
  for restore, wanted in [
    (again.restore_best, 30),
    (again.restore_best_or_latest, 30),
    (again.restore_latest, 50),
  ]:
    step, state = restore(_state(0))
    assert step == wanted
    _assert_same(state, _state(wanted))
  _assert_same(again.restore(40, _state(0)), _state(40))
  with pytest.raises(UserError, match=r'of step 30 in .* is one: 40, 50$'):
    again.restore(30, _state(0))


def test_without_a_best_one_a_run_is_judged_by_its_newest(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  with pytest.raises(UserError, match='no checkpoint in .* train the run'):
    checkpoints.restore_best_or_latest(_state(0))
  for step in (10, 20):
    checkpoints.save(step, _state(step))
  step, state = checkpoints.restore_best_or_latest(_state(0))
  assert step == 20
  _assert_same(state, _state(20))


def test_an_earlier_step_saved_again_stays(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  for step in (10, 20, 5, 5):
    checkpoints.save(step, _state(step))
  assert checkpoints.steps == (5, 20)
  _assert_same(checkpoints.restore(5, _state(0)), _state(5))


def _truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
  content = bytearray(path.read_bytes())
  for i in range(0, len(content), max(1, len(content) // 7)):
    content[i] ^= 0x10
  path.write_bytes(content)


def _empty(path):
  path.write_bytes(b'')


@pytest.mark.parametrize('damage', [_truncate, _flip, _empty, Path.unlink])
def test_a_damaged_newest_gives_way_to_the_one_before(damage, tmp_path, caplog):
  whole = tmp_path / 'whole'
  checkpoints = Checkpoints(whole)
  for step in (1, 2):
    checkpoints.save(step, _state(step))
  files = [path for path in (whole / '2').rglob('*') if path.is_file()]
  # The others are Orbax's marks and logs: damage to them loses nothing.
  needed = {whole / '2/header/metadata', whole / '2/state/manifest.ocdbt'}
  needed |= {whole / '2/state/_METADATA'}
  needed |= {max(files, key=lambda path: path.stat().st_size)}
  for i, file in enumerate(files):
    folder = tmp_path / f'copy{i}'
    shutil.copytree(whole, folder)
    damage(folder / file.relative_to(whole))
    caplog.clear()
    checkpoints = Checkpoints(folder)
    step, state = checkpoints.restore_latest(_state(0))
    _assert_same(state, _state(step))
    assert step == 1 or file not in needed
    if step == 1:
      assert str(folder / '2') in caplog.text
      assert checkpoints.steps == (1,)
    checkpoints.save(2, _state(2))
    _assert_same(checkpoints.restore(2, _state(0)), _state(2))


def test_damage_everywhere_is_said_and_nothing_is_moved(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  for step in (1, 2):
    checkpoints.save(step, _state(step))
  checkpoints.save_best(2, _state(2), 1.0)
  for path in tmp_path.rglob('manifest.ocdbt'):
    _flip(path)
  with pytest.raises(UserError, match=r'every .* damaged \(steps 1, 2\)'):
    checkpoints.restore_latest(_state(0))
  with pytest.raises(UserError, match='best checkpoint .* is damaged'):
    checkpoints.restore_best(_state(0))
  with pytest.raises(UserError, match=f'{tmp_path}/1 is damaged'):
    checkpoints.restore(1, _state(0))
  assert checkpoints.steps == (1, 2)
  assert Checkpoints(tmp_path).save_best(3, _state(3), 9.0)


def test_a_reader_moves_nothing(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  for step in (1, 2):
    checkpoints.save(step, _state(step))
  _empty(tmp_path / '2/header/metadata')
  reader = Checkpoints(tmp_path, primary=False)
  assert reader.restore_latest(_state(0))[0] == 1
  reader.save(3, _state(3))
  assert not reader.save_best(3, _state(3), 0.0)
  assert reader.steps == (1, 2)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'bits': np.zeros(3, np.int32)}, r'bits: int32\[2\] in .* int32\[3\] now'),
    ({'bits': np.zeros(2)}, r'bits: int32\[2\] in .* float64\[2\] now'),
    ({'more': np.zeros(2)}, r'more: nothing in .*, float64\[2\] now'),
  ],
)
def test_another_model_is_refused(change, message, tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, _state(1))
  with pytest.raises(UserError, match=message):
    checkpoints.restore_latest({**_state(0), **change})
  assert checkpoints.steps == (1,)


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file/x: not a directory'):
    Checkpoints(tmp_path / 'file' / 'x')
  checkpoints = Checkpoints(tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run')
  (tmp_path / 'run').write_text('')
  with pytest.raises(UserError, match='run/1 cannot be written: '):
    checkpoints.save(1, _state(1))


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
  # The limit on a file's size fails in the same calls as a full disk does.
  process = _run(
    """
    import resource
    checkpoints = Checkpoints(Path(sys.argv[1]))
    checkpoints.save(1, _state(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    large = {str(i): np.ones(50_000) for i in range(20)}
    for _ in range(2):
      try:
        checkpoints.save(2, large)
      except UserError as error:
        print(error)
    time.sleep(0.3)
    """,
    tmp_path,
  )
  out, err = process.communicate(timeout=60)
  line = f'checkpoint {tmp_path}/2 cannot be written: file too large; earlier'
  assert [text[: len(line)] for text in out.splitlines()] == [line, line]
  assert err == ''
  checkpoints = Checkpoints(tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['1', 'best']
  step, state = checkpoints.restore_latest(_state(0))
  assert step == 1
  _assert_same(state, _state(1))


def test_the_systems_reason_is_found_in_what_orbax_raises():
  error = ValueError("RESOURCE_EXHAUSTED: … [os_error_code='28'] …")
  assert checkpoints_module._system_error(error) == 'no space left on device'
  assert checkpoints_module._system_error(ValueError('a shape')) is None


def test_a_killed_process_leaves_whole_checkpoints(tmp_path):
  delays = random.Random(0)
  latest = 0
  for _ in range(3):
    process = _run(
      """
      checkpoints = Checkpoints(Path(sys.argv[1]), keep=2)
      found = checkpoints.restore_latest(_state(0))
      step = found[0] if found else 0
      while True:
        step += 1
        checkpoints.save(step, _state(step))
        checkpoints.save_best(step, _state(step), 1 / step)
        print(step, flush=True)
      """,
      tmp_path,
    )
    line = process.stdout.readline()
    time.sleep(delays.uniform(0, 0.3))
    process.kill()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-signal.SIGKILL, '')
    printed = [int(text) for text in (line + out).split()]
    assert printed[0] == latest + 1
    reader = Checkpoints(tmp_path, keep=2, primary=False)
    latest, state = reader.restore_latest(_state(0))
    assert printed[-1] <= latest <= printed[-1] + 1
    _assert_same(state, _state(latest))
    for step in reader.steps:
      _assert_same(reader.restore(step, _state(0)), _state(step))
    best, state = reader.restore_best(_state(0))
    assert printed[-1] <= best <= latest
    _assert_same(state, _state(best))
  Checkpoints(tmp_path, keep=2).save(latest + 1, _state(latest + 1))
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {str(latest), str(latest + 1), 'best'}


def test_one_process_of_a_distributed_run_writes_and_each_restores(tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  processes = [
    _run(
      """
      from jax.experimental import multihost_utils
      folder, address, index = sys.argv[1:]
      jax.distributed.initialize(address, 2, int(index))
      checkpoints = Checkpoints(Path(folder), primary=index == '0')
      if index == '0':  # The other is elsewhere: a save waits for nobody.
        for step in (1, 2, 3, 4):
          checkpoints.save(step, _state(step))
      multihost_utils.sync_global_devices('saved')
      print(*checkpoints.steps)
      step, state = checkpoints.restore_latest(_state(0))
      _assert_same(state, _state(step))
      """,
      tmp_path,
      address,
      index,
    )
    for index in range(2)
  ]
  for process in processes:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == '2 3 4'  # Gloo prints a line before it.


def test_files_in_the_way_are_no_checkpoints(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  for step in (1, 2):
    checkpoints.save(step, _state(step))
  for name in ('2.damaged', '1.removed', '007', '٣'):
    (tmp_path / name).write_text('')
  (tmp_path / '1.orbax-checkpoint-tmp-5').write_text('')
  _empty(tmp_path / '2/header/metadata')
  checkpoints = Checkpoints(tmp_path, keep=2)
  assert checkpoints.steps == (1, 2)
  assert checkpoints.restore_latest(_state(0))[0] == 1
  assert (tmp_path / '2.damaged').is_dir()
  (tmp_path / '3').write_text('')  # The newest, and no checkpoint.
  (tmp_path / '1.removed').write_text('')
  assert checkpoints.restore_latest(_state(0))[0] == 1
  for step in (2, 3, 4):
    checkpoints.save(step, _state(step))
  assert checkpoints.steps == (3, 4)
  _assert_same(checkpoints.restore(3, _state(0)), _state(3))


def test_a_checkpoint_says_what_its_run_is(tmp_path):
  about = {'config': {'learning_rate': 0.1}}
  Checkpoints(tmp_path).save(1, _state(1))
  checkpoints = Checkpoints(tmp_path, about=about)
  checkpoints.save(2, _state(2))
  checkpoints.save(3, _state(3))
  checkpoints.save_best(2, _state(2), 1.0)
  _empty(tmp_path / '3/header/metadata')
  found = Checkpoints(tmp_path, primary=False).origins()
  assert found == [(tmp_path / '2', about), (tmp_path / 'best/2', about)]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'run')
  checkpoints.save(1, _state(1))
  shutil.rmtree(tmp_path / 'run')
  with pytest.raises(UserError, match='run/2 .*the folder is gone'):
    checkpoints.save(2, _state(2))
  with pytest.raises(UserError, match='best/2 .*the folder is gone'):
    checkpoints.save_best(2, _state(2), 1.0)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('best', [False, True])
@pytest.mark.parametrize('fails', [False, True])
@pytest.mark.parametrize('others', [False, True])
def test_a_save_leaves_nothing_of_a_folder_that_goes_meanwhile(
  best, fails, others, tmp_path, monkeypatch
):
  """And what somebody else has put in its place stays."""
  run = tmp_path / 'run'
  checkpoints = Checkpoints(run / 'checkpoints')
  checkpoints.save(1, _state(1))
  save = checkpoints._orbax.save

  def vanish_and_save(*args, **kwargs):
    run.rename(tmp_path / 'removed')  # Its inode is not given to another.
    if others:
      run.mkdir()
      (run / 'notes.txt').touch()
    save(*args, **kwargs)
    if fails:
      raise ValueError('any that Orbax raises')

  monkeypatch.setattr(checkpoints._orbax, 'save', vanish_and_save)
  with pytest.raises(UserError, match='2 cannot be .*the folder is gone'):
    if best:
      checkpoints.save_best(2, _state(2), 1.0)
    else:
      checkpoints.save(2, _state(2))
  left = [path.name for path in tmp_path.rglob('*') if path.is_relative_to(run)]
  assert left == (['run', 'notes.txt'] if others else [])


def test_a_copy_that_took_the_folders_place_is_left_alone(tmp_path):
  run = tmp_path / 'run'
  checkpoints = Checkpoints(run)
  for step in (1, 2):
    checkpoints.save(step, _state(step))
  run.rename(tmp_path / 'old')
  shutil.copytree(tmp_path / 'old', run)
  with pytest.raises(UserError, match='run/2 .*the folder is gone'):
    checkpoints.save(2, _state(3))
  _assert_same(Checkpoints(run).restore(2, _state(0)), _state(2))
