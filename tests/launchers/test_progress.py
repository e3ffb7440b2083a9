import json

from qgan_jax.launchers.progress import Progress, Reader

QUICK = 'eval/frechet_distance_train'


def write(path, *rows, mode='w', end='\n'):
  with open(path, mode) as file:
    file.write('\n'.join(map(json.dumps, rows)) + end)


def test_a_folder_is_read_as_it_grows(tmp_path):
  reader = Reader(tmp_path / 'run')
  assert reader.read() == Progress()
  assert reader.checkpoint() == -1

  (tmp_path / 'run').mkdir()
  metrics = tmp_path / 'run' / 'metrics.jsonl'
  write(
    metrics,
    {'step': 10, 'steps_per_second': 4.0},
    {'step': 10, QUICK: 30.0},
    {'step': 20, 'steps_per_second': 5.0, 'd_loss': 'NaN'},
    {'step': 20, QUICK: 'NaN'},
  )
  assert reader.read() == Progress(20, 5.0, 30.0)
  # Half a line is left for later.
  write(metrics, {'step': 30, QUICK: 20.0}, mode='a', end='')
  assert reader.read() == Progress(20, 5.0, 30.0)
  write(metrics, mode='a')
  write(metrics, {'step': 40, QUICK: 25.0}, mode='a')
  assert reader.read() == Progress(40, 5.0, 20.0)

  # What a resumed run takes back is forgotten.
  write(tmp_path / 'new', {'step': 10, QUICK: 30.0})
  (tmp_path / 'new').replace(metrics)
  assert reader.read() == Progress(10, None, 30.0)

  for name in '8', '16', '24.orbax-tmp', 'best':
    (tmp_path / 'run' / 'checkpoints' / name).mkdir(parents=True)
  assert reader.checkpoint() == 16


def test_scores_say_that_it_is_complete(tmp_path):
  reader = Reader(tmp_path)
  (tmp_path / 'scores.json').write_text('{"best": ')
  assert not reader.read().done
  best = {
    'fid': 12.5,
    'frechet_distance': 3.0,
    'step': 9,
    'num_real': 9,
    'num_fake': 9,
    'extractor': {'name': 'none', 'hash': '0'},
  }
  scores = {'best': best, 'last': best}
  (tmp_path / 'scores.json').write_text(json.dumps(scores))
  progress = reader.read()
  assert progress.done
  assert progress.score == 12.5
