"""`python -m graphdl` is the command `graphdl`."""

import sys

from graphdl.cli import main

sys.exit(main())
