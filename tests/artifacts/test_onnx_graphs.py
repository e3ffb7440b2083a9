"""ONNX graphs against the network that was trained, in two runtimes."""

import json

from example_generator import make_generator
import jax
import numpy as np
import onnx
import pytest
from runtimes import (
  feeds_of,
  IN_INTEGERS,
  in_integers,
  run_onnxruntime,
  run_openvino,
)

from qgan_jax import models
from qgan_jax.artifacts.inference import images
from qgan_jax.artifacts.onnx_graphs import FORMS, onnx_model
from qgan_jax.artifacts.plan import make_plan
from qgan_jax.errors import UserError

NETWORKS = [
  {'image_size': 28},
  {'image_size': 28, 'norm': 'batch', 'num_classes': 10},
  {'image_size': 32, 'norm': 'none', 'image_channels': 3},
  {'image_size': 64, 'channels': 8, 'axis': None},
  {'image_size': 28, 'activations': 'uniform', 'num_classes': 3},
  {'image_size': 28, 'weights': 'power_of_two_scale'},
]


@pytest.mark.parametrize('network', NETWORKS, ids=str)
def test_integer_graphs_are_the_trained_network_at_8_bits(network, tmp_path):
  generator, latents, labels = make_generator(**network)
  expected = images(generator, latents, labels)
  assert expected.std() > 0.1
  plan = make_plan(generator, integer=True)
  feeds = feeds_of(latents, labels)
  grey = {}
  for form, run in IN_INTEGERS:
    drawn, executed = run(onnx_model(plan, form, {}), feeds, tmp_path)
    assert drawn.shape == expected.shape
    # In grey levels of 256: the trained network's, and these.
    off = 127.5 * np.abs(drawn - expected)
    assert (off <= 1).mean() >= 0.999
    # A code that falls on the other side of a half moves an image a little.
    assert off.max() < 4
    assert off.mean() < 0.02
    if form == 'gathered':
      # One for the latents, four for each layer of phases, one for the last.
      assert executed == ['MatMulIntegerToFloat'] * len(executed)
      assert len(executed) == 2 + 4 * (len(plan.layers) - 2)
    else:
      assert len(executed) == len(plan.layers)
      assert all(in_integers(name) for name in executed), executed
    grey[form] = drawn
  # Two runtimes, two ways of multiplying, the same images.
  off = 127.5 * np.abs(grey['gathered'] - grey['transposed'])
  assert (off <= 1).mean() >= 0.999


@pytest.mark.parametrize('bits', [(4, 8), (2, 8), (1, 8), (4, 4), (3, 2)])
def test_fewer_bits(bits, tmp_path):
  generator, latents, _ = make_generator(bits=bits)
  expected = images(generator, latents)
  plan = make_plan(generator, integer=True)
  for form, run in IN_INTEGERS:
    data = onnx_model(plan, form, {})
    drawn, executed = run(data, {'latents': latents}, tmp_path)
    # With few levels a rounding that goes the other way shows more, but
    # hardly any does.
    assert (127.5 * np.abs(drawn - expected) <= 1).mean() >= 0.99
    assert all('Integer' in name or in_integers(name) for name in executed)


# Of `lsq`, the least code has no counterpart: −8 is one of four bits.
@pytest.mark.parametrize('weights', ['uniform', 'lsq'])
def test_codes_take_their_bits_in_the_file(weights):
  sizes = {}
  for bits in (8, 4, 2):
    generator, _, _ = make_generator(
      bits=(bits, 8), channels=32, weights=weights
    )
    plan = make_plan(generator, integer=True)
    sizes[bits] = [len(onnx_model(plan, form, {})) for form in FORMS]
  parameters = sum(x.size for x in jax.tree.leaves(generator.variables))
  rest = 35_000  # Nodes, biases, scales, norms.
  for bits, (transposed, gathered) in sizes.items():
    assert transposed < parameters * max(bits, 4) / 8 + rest
    assert gathered < parameters * max(bits, 2) / 8 + rest


@pytest.mark.parametrize('network', NETWORKS[:4], ids=str)
def test_float_graph(network, tmp_path):
  generator, latents, labels = make_generator(bits=(32, 32), **network)
  module = generator.module
  expected = module.apply(generator.variables, latents, labels)
  data = onnx_model(make_plan(generator, integer=False), 'transposed', {})
  for run in (run_onnxruntime, run_openvino):
    drawn, executed = run(data, feeds_of(latents, labels), tmp_path)
    np.testing.assert_allclose(drawn, expected, atol=2e-5)
    assert len(executed) == len(models.dcgan.stage_sizes(module.image_size))


def test_batch_is_free_and_the_file_says_what_it_is(tmp_path):
  generator, latents, labels = make_generator(num_classes=3)
  plan = make_plan(generator, integer=True)
  for form in FORMS:
    data = onnx_model(plan, form, {'dataset': 'none'})
    one, _ = run_onnxruntime(data, feeds_of(latents[:1], labels[:1]), tmp_path)
    many, _ = run_onnxruntime(data, feeds_of(latents, labels), tmp_path)
    np.testing.assert_allclose(one, many[:1], atol=1e-5)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    entry, _ = model.metadata_props
    assert json.loads(entry.value) == {
      'dataset': 'none',
      'version': 1,
      'form': form,
      'integer': True,
      'needs_vnni': False,
      'latent_dim': 16,
      'num_classes': 3,
      'inputs': [[[16], 'float32'], [[], 'int32']],
      'image_shape': [28, 28, 1],
    }


@pytest.mark.parametrize(
  ('kwargs', 'message'),
  [
    ({'bits': (32, 8)}, r'weights of project \(uniform, 32'),
    ({'bits': (9, 8)}, r'weights of project \(uniform, 9'),
    ({'bits': (8, 9)}, r'activations of project \(affine, 9.* than 8 bits'),
    ({'bits': (8, 32)}, r'activations of project \(affine, 32.* in float'),
    ({'activations': None}, r'activations of project \(float.* in float'),
    ({'dynamic': True}, r'activations of project .* from each batch'),
    ({'weights': None}, r'weights of project \(float'),
    ({'bits': (-9, 8), 'weights': 'grid'}, r'weights of project \(grid'),
    (
      {'activations': 'uniform', 'bits': (8, 1)},
      r'activations of up0 \(uniform, 1.* no level at 0',
    ),
  ],
)
def test_what_integers_cannot_say_is_refused_by_name(kwargs, message):
  generator, _, _ = make_generator(channels=8, **kwargs)
  with pytest.raises(UserError, match=message):
    make_plan(generator, integer=True)


SMALL = {'image_size': 8, 'channels': 8}


@pytest.mark.parametrize(
  'quantizers',
  [
    *({'weights': name} for name in ('ternary', 'logarithmic', 'dorefa',
                                     'apot', 'bwn', 'mxfp4')),
    *({'activations': name} for name in ('lsq', 'pact', 'dorefa_activation',
                                         'lsq_plus', 'qgan_em')),
  ],
  ids=str,
)  # fmt: skip
def test_whatever_is_equal_steps_is_exported(quantizers, tmp_path):
  generator, latents, _ = make_generator(bits=(4, 4), **SMALL, **quantizers)
  plan = make_plan(generator, integer=True)
  for layer in plan.layers:
    codes, scales = layer.codes
    np.testing.assert_allclose(codes * scales, layer.kernel, rtol=3e-6)
  expected = images(generator, latents)
  for form, run in IN_INTEGERS:
    model = onnx_model(plan, form, {})
    drawn, _ = run(model, {'latents': latents}, tmp_path)
    assert (127.5 * np.abs(drawn - expected) <= 1).mean() > 0.99


@pytest.mark.parametrize(
  ('quantizers', 'message'),
  [
    ({'weights': 'codebook'}, r'weights of project \(codebook'),
    ({'weights': 'qgan_em'}, r'weights of project \(qgan_em'),
    ({'weights': 'fp8_e4m3'}, r'weights of project \(fp8_e4m3'),
    ({'activations': 'logarithmic'}, 'logarithmic.* steps that are not equal'),
    ({'activations': 'xnor'}, 'xnor.* take their range from each batch'),
  ],
  ids=str,
)
def test_and_what_is_not_is_refused(quantizers, message):
  generator, _, _ = make_generator(bits=(4, 4), **SMALL, **quantizers)
  with pytest.raises(UserError, match=message):
    make_plan(generator, integer=True)


def test_a_grid_that_fits_in_bytes_is_integers():
  generator, _, _ = make_generator(bits=(-4, 8), weights='grid', channels=8)
  plan = make_plan(generator, integer=True)
  for layer in plan.layers:
    codes, scales = layer.codes
    np.testing.assert_array_equal(codes * scales, layer.kernel)
