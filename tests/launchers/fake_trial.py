"""Stands in for `qgan_jax.main`: counts to N, with all that a run leaves.

fake_trial.py WORKDIR STEPS [OPTION…]

crash=K   dies by SIGKILL after step K, each time it passes it
once=K    the same, the first time only
every=K   the same K steps after it has started, each time
die       dies before anything is done
refuse    says what is wrong and exits with code 2, before anything is done
nan=K     the same after step K
deaf      ignores SIGTERM
slow      takes 50 ms a step
"""

import json
import os
from pathlib import Path
import signal
import sys
import time

workdir, steps = Path(sys.argv[1]), int(sys.argv[2])
options = dict((*arg.split('='), '')[:2] for arg in sys.argv[3:])
stopped = []
if 'deaf' in options:
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
  signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
if 'die' in options:
  os.kill(os.getpid(), signal.SIGKILL)
if 'refuse' in options:
  print('error: no data here; get some', file=sys.stderr)
  sys.exit(2)

workdir.mkdir(parents=True, exist_ok=True)
(workdir / 'config.json').write_text('{}')
checkpoints = workdir / 'checkpoints'
checkpoints.mkdir(exist_ok=True)
step = max([int(name) for name in os.listdir(checkpoints)], default=0)
start = step
# Each step and the process that made it: none is made by two at a time.
with open(workdir / 'trace.txt', 'a', buffering=1) as trace:
  print(f'start {os.getpid()} {start}', file=trace)
  with open(workdir / 'metrics.jsonl', 'a', buffering=1) as metrics:
    while step < steps:
      time.sleep(0.05 if 'slow' in options else 0.002)
      step += 1
      print(f'step {os.getpid()} {step}', file=trace)
      row = {'step': step, 'steps_per_second': 20.0}
      row['eval/frechet_distance_train'] = 100 / step
      print(json.dumps(row), file=metrics)
      if step % 4 == 0 or stopped:
        (checkpoints / str(step)).mkdir(exist_ok=True)
      if stopped:
        sys.exit(128 + stopped[0])
      if step == int(options.get('nan', -1)):
        print(f'error: step {step} gave NaN', file=sys.stderr)
        sys.exit(2)
      if step == start + int(options.get('every', -1)):
        os.kill(os.getpid(), signal.SIGKILL)
      first = not (workdir / 'crashed').exists()
      if step == int(options.get('crash', options.get('once', -1))) and (
        first or 'crash' in options
      ):
        (workdir / 'crashed').touch()
        os.kill(os.getpid(), signal.SIGKILL)
score = {
  'frechet_distance': 100 / steps,
  'step': steps,
  'num_real': 9,
  'num_fake': 9,
  'extractor': {'name': 'none', 'hash': '0'},
}
scores = {'best': score, 'last': score}
(workdir / 'scores.json').write_text(json.dumps(scores))
