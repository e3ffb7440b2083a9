"""ONNX models in both runtimes, and what they were really multiplied by."""

import numpy as np
import onnx
import onnxruntime

from qgan_jax.artifacts.drawing import has_vnni
from qgan_jax.artifacts.runtimes import import_openvino

onnxruntime.set_default_logger_severity(3)
MULTIPLIES = ('conv', 'matmul', 'gemm', 'fullyconnected')


def run_onnxruntime(data, feeds, tmp_path):
  """(images, the operations that multiply, by their names)."""
  options = onnxruntime.SessionOptions()
  options.optimized_model_filepath = str(tmp_path / 'executed.onnx')
  session = onnxruntime.InferenceSession(
    data, options, providers=['CPUExecutionProvider']
  )
  (drawn,) = session.run(None, feeds)
  executed = onnx.load(tmp_path / 'executed.onnx')
  names = [node.op_type for node in executed.graph.node]
  return drawn, [n for n in names if any(k in n.lower() for k in MULTIPLIES)]


def run_openvino(data, feeds, tmp_path):
  """(images, the primitives that multiply, by their names)."""
  (tmp_path / 'read.onnx').write_bytes(data)
  # Else a CPU that has bfloat16 takes it for what is left in float.
  compiled = (
    import_openvino()
    .Core()
    .compile_model(
      tmp_path / 'read.onnx', 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}
    )
  )
  drawn = compiled(feeds)[0]
  primitives = []
  for node in compiled.get_runtime_model().get_ops():
    info = node.get_rt_info()
    kind, primitive = (
      info[key].astype(str) for key in ('layerType', 'primitiveType')
    )
    # 'Convert' changes types; it is no convolution.
    if kind != 'Convert' and any(k in kind.lower() for k in MULTIPLIES):
      primitives.append(primitive)
  return drawn, primitives


# Whether layers are split where their sums would need VNNI. Graphs that are not
# saturate without it: test_processors.py shows that they do.
SPLITS = (True, False) if has_vnni() else (True,)
# Which form of an integer graph is made for which of them.
IN_INTEGERS = (('gathered', run_onnxruntime), ('transposed', run_openvino))


def in_integers(primitive):
  # Where there is no AVX-512, OpenVINO runs deconvolutions in float.
  return primitive.endswith('_I8') or primitive == 'brgconv_avx2_f32'


def feeds_of(latents, labels):
  feeds = {'latents': latents}
  if labels is not None:
    feeds['labels'] = labels.astype(np.int64)
  return feeds
