"""A few hundred of the mutations of `benchmarks/mutations.py`."""

from pathlib import Path
import sys

import pytest

sys.path.append(str(Path(__file__).parents[2] / 'benchmarks'))
import mutations  # noqa: E402


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
  folder = tmp_path_factory.mktemp('originals')
  return mutations.write_originals(folder, list(mutations.FILES))


@pytest.mark.parametrize(
  ('kind', 'count'),
  [('qgan', 200), ('pt', 200), ('onnx', 20), ('tflite', 40), ('stablehlo', 8)],
)
def test_mutated_files_are_refused_or_read(originals, kind, count):
  found = mutations.run_kind(kind, originals[kind], count, seconds=600)
  assert not found['failures']
  assert found['raw'].get('refused', 0) > 0.9 * count / 2
  assert found['resealed'].get('refused', 0) > 0
