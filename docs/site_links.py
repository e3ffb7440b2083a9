"""What MkDocs calls for each page: links to files outside of docs/.

On a clone, `../examples/draw.py` is the file. On the site it is that file in
the repository where mkdocs.yml has its address (`repo_url`), else only text.
"""

import re
from typing import Any

_OUTSIDE = re.compile(r'\[([^\[\]]+)\]\(\.\./([^)\s]+)\)')


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
  """Replaces a page's links to files outside of docs/."""
  if not config.repo_url:
    return _OUTSIDE.sub(r'\1', markdown)
  address = config.repo_url.rstrip('/')
  return _OUTSIDE.sub(rf'[\1]({address}/blob/main/\2)', markdown)
