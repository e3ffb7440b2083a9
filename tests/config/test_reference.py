"""The table of keys as a page and on a terminal."""

from pathlib import Path

import pytest

from qgan_jax import config as config_lib
from qgan_jax.config import reference
from qgan_jax.config.keys import KEYS

DOCS = Path(__file__).parents[2] / 'docs'


def test_the_page_of_the_docs_is_that_of_the_table():
  again = 'run python -m qgan_jax.config.reference > docs/config.md'
  assert (DOCS / 'config.md').read_text() == reference.page(), again


@pytest.mark.parametrize('key', KEYS.values(), ids=lambda key: key.path)
def test_every_key_is_on_the_page_and_on_the_terminal(key):
  rows = [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in reference.page().splitlines()
    if line.startswith('|')
  ]
  assert {len(row) for row in rows} == {5}
  (row,) = (row for row in rows if f'`{key.path}`' in row[1].split(', '))
  assert not key.short or f'`{key.short}`' in row[0].split(', ')
  assert key.kind.allowed == row[4]
  assert f' {key.short or key.path}' in reference.listing(config_lib.base())


def test_a_terminal_of_80_columns_shows_what_an_experiment_has():
  config = config_lib.base(
    experiment='mine',
    steps=10_000,
    d_norm='batch',
    sparsity=0.5,
    g_bits=4,
    spectral_norm=True,
    rules='; '.join(f'*/weights/up{i}: bits=8' for i in range(9)),
  )
  lines = reference.listing(config).splitlines()
  assert max(map(len, lines)) <= 80
  said = [line.strip() for line in lines if ' = ' in line and line[0] == ' ']
  assert said == [
    'experiment = mine',
    'g_bits = 4',
    'rules (precision.rules) = */weights/up0: bits=8; */weights/up1: bits=8;',
    'spectral_norm (discriminator.spectral_norm) = true',
    'norm, g_norm, d_norm: d_norm = batch',
    'sparsity, g_sparsity, d_sparsity: sparsity = 0.5',
    'steps = 10000',
  ]
  text = ' '.join(' '.join(lines).split())
  assert (
    'Training steps. Takes a whole number from 1 to 2147483647. By default '
    '16000.'
  ) in text
  # Markdown is for the page.
  assert '`' not in text
  assert '](' not in text
  for page in ('docs/precision.md', 'docs/quantizers.md'):
    assert page in text
    assert (DOCS.parent / page).exists()
