"""What every tensor of the networks is quantized with, to read."""

from collections.abc import Sequence
from typing import NamedTuple


class Choice(NamedTuple):
  """What one layer's role is quantized with: a line of the table.

  Attributes:
    network: 'generator'…; '' where there is one alone.
    layer: its module path.
    role: one of `ROLES`.
    quantizer: its name, '' for float.
    bits: the width of its codes, 32 for float.
    per_channel: whether each output channel has its own scale.
    ranges: of activations, one of `RANGES`; 'learned', or 'first batch' where
      a learned quantizer has the network's own input; 'fixed' where the range
      is a part of the quantizer's definition; '' of the rest.
    shape: of the tensor, without the batch.
    rule: the last rule that caught it, '' for the default.
    from_step: the first step that quantizes it; None for float.
  """

  network: str
  layer: str
  role: str
  quantizer: str
  bits: float
  per_channel: bool
  ranges: str
  shape: tuple[int, ...]
  rule: str
  from_step: int | None


def format_table(table: Sequence[Choice]) -> str:
  """The table as text, one line for every layer and role that has a choice.

  Without the column of networks where there is one alone, which has no name.
  """
  rows: list[tuple[str, ...]] = [
    ('network', 'layer', 'role', 'bits', 'quantizer', 'range', 'shape')
  ]
  for c in table:
    if c.role == 'gradients' and not c.quantizer:
      continue
    name = c.quantizer or 'float'
    rows.append(
      (
        c.network,
        c.layer or '(itself)',
        c.role,
        f'{c.bits:g}',
        f'{name} per channel' if c.per_channel else name,
        c.ranges or '-',
        '×'.join(map(str, c.shape)) + (f'  ← {c.rule}' if c.rule else ''),
      )
    )
  if not any(c.network for c in table):
    rows = [row[1:] for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(map(str.ljust, row, widths)).rstrip() for row in rows
  )
