"""The grammar of a config string, and what it says of a wrong one."""

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
from test_config import resolved

from qgan_jax import config as config_lib
from qgan_jax.config import grammar
from qgan_jax.errors import UserError

_KEYS = st.from_regex(r'[a-z_]+(\.[a-z_]+)*', fullmatch=True)
_VALUES = st.one_of(
  st.integers(),
  st.floats(allow_nan=False, allow_infinity=False),
  st.booleans(),
  st.from_regex(r'[^,\s]([^,]*[^,\s])?', fullmatch=True).filter(
    lambda text: text == text.strip()
  ),
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_parse_undoes_join_and_values_read_back(pairs):
  parsed = grammar.parse(grammar.join(pairs))
  read = {
    key: grammar.convert(key, text, type(pairs[key]))
    for key, text in parsed.items()
  }
  assert read == pairs
  assert [*map(type, read.values())] == [*map(type, pairs.values())]


@pytest.mark.parametrize('arg', [None, '', '  '])
def test_nothing_means_the_defaults(arg):
  assert grammar.parse(arg) == {}
  assert resolved(arg) == resolved()


@pytest.mark.parametrize(
  ('arg', 'said'),
  [
    ('bits', "character 1: 'bits' is not key=value"),
    ('bits=8,,seed=1', "character 8: '' is not key=value"),
    ('bits=8,', "character 8: '' is not key=value"),
    ('seed=1,bits=', "character 8: 'bits=' is not key=value"),
    ('=8', "character 1: '=8' is not key=value"),
    ('bits=8,seed=1,bits=4', "character 15: 'bits' is given twice"),
  ],
)
def test_a_malformed_string_is_shown_where(arg, said):
  with pytest.raises(UserError, match=said):
    grammar.parse(arg)


@pytest.mark.parametrize(
  ('arg', 'said'),
  [
    ('bitz=8', "no config key 'bitz'; did you mean 'bits'"),
    ('generater.channels=8', "did you mean 'generator.channels'"),
    ('zzzzzz=8', 'the keys are experiment, model, source'),
    ('generator=8', "'generator' is a group; its keys are generator."),
    ('g_w_bits=8,generator.bits.weights=4', "as 'g_w_bits' and 'generator.bi"),
    ('bits=4,dir=a,b=c', 'part of dir: .* as --config.data.dir=VALUE'),
    ('bits=4,bitz=8', r"did you mean 'bits'\?$"),
    ('steps=abc', 'steps=abc: steps takes a whole number'),
    ('steps=1.0', 'steps takes a whole number'),
    ('steps=True', 'steps takes a whole number'),
    ('learning_rate=fast', 'learning_rate takes a number'),
    ('learning_rate=nan', 'learning_rate takes a finite number'),
    ('ema=inf', 'ema takes a finite number'),
    ('conditional=1', 'conditional takes true or false'),
  ],
)
def test_the_string_is_refused_with_the_key_in_the_message(arg, said):
  with pytest.raises(UserError, match=said):
    resolved(arg)


def test_text_is_kept_as_text():
  # 1e5 and 007 are names of folders, not numbers.
  assert resolved('dir=1e5').data.dir == '1e5'
  assert resolved('source=folder:/a=b').data.source == 'folder:/a=b'


def test_an_experiment_sets_only_keys_that_there_are():
  with pytest.raises(UserError, match='bits'):
    config_lib.base(bitz=8)
  with pytest.raises(AttributeError, match='steps'):
    config_lib.base().stepz = 3
