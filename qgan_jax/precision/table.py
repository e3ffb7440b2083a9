"""The table of what each tensor of the networks is quantized with."""

from collections.abc import Sequence
from typing import NamedTuple


class Choice(NamedTuple):
  """Quantizer and bits of one role of a layer: a row of the table.

  Attributes:
    network: such as 'generator'; '' if there is only one.
    layer: its module path.
    role: one of `ROLES`.
    quantizer: its name; '' for float.
    bits: the width of its codes; 32 for float.
    per_channel: whether each output channel has its own scale.
    ranges: for activations, one of `RANGES`; 'learned'; 'first batch', for the
      network's own input with a learned quantizer; or 'fixed', if the range is
      part of the quantizer's definition. '' for other roles.
    shape: of the tensor, without the batch.
    rule: the last rule that matches it; '' if none does.
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
  """The table as text, with one line for every layer and role.

  Rows of gradients in float are left out, and so is the column of networks if
  these have no names.
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
