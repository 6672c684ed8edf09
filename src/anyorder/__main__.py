"""`python -m anyorder`, the same as the command `anyorder`; torchrun starts it so."""

import sys

from anyorder.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
