"""What lies in an interactive page, read without a browser."""

import base64
import json
import re
import zlib
from typing import Any

from graphdl.visualize.page import unfolded


def documents_in(page: str) -> list[dict[str, Any]]:
    """The documents that a page shows, as `to_html` was given them."""
    packed = re.search(r'<script id="packed"[^>]*>(.*?)</script>', page, re.DOTALL)
    found = json.loads(zlib.decompress(base64.b64decode(packed[1])))["documents"]
    return [unfolded(document) for document in found]
