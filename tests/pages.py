"""What lies in an interactive page, read without a browser."""

import base64
import json
import re
import zlib
from typing import Any


def documents_in(page: str) -> list[dict[str, Any]]:
    """The documents that a page shows, as `to_html` was given them."""
    packed = re.search(r'<script id="packed"[^>]*>(.*?)</script>', page, re.DOTALL)
    found = json.loads(zlib.decompress(base64.b64decode(packed[1])))["documents"]
    for document in found:
        for part in (document, *document["graphs"]):
            late = part.pop("late")
            part.update({name: json.loads(text) for name, text in late.items()})
    return found
