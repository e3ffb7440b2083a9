"""The examples in docstrings run, and give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
  'name',
  [
    'qgan_jax',
    'qgan_jax.artifacts.packed',
    'qgan_jax.post_training.modules',
  ],
)
def test_the_examples_of_a_module(name):
  failed, tried = doctest.testmod(importlib.import_module(name))
  assert tried and not failed
