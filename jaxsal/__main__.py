"""``python -m jaxsal`` is ``jaxsal``."""

import sys

from jaxsal.cli import main

sys.exit(main())
