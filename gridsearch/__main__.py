"""``python -m gridsearch`` is the same program as ``gridsearch``."""

import sys

from gridsearch.cli import main

if __name__ == "__main__":
    sys.exit(main())
