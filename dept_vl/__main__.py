"""``python -m dept_vl``: the command line."""

import sys

from dept_vl.cli import main

sys.exit(main())
