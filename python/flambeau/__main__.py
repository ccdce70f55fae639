"""`python -m flambeau script.py`: runs a PyTorch program as it is."""

import sys

from ._run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
