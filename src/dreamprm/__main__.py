"""`python -m dreamprm` is `dreamprm`."""

import sys

from dreamprm.cli import main

sys.exit(main())
