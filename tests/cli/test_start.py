"""How the command starts: under the settings that PyTorch reads before its process begins."""

import os
import subprocess
import sys

from anyorder.cli.main import TUNED

SHOW = """
import os, sys
from anyorder.cli import main as cli
cli._run = lambda args: print(os.environ["OMP_WAIT_POLICY"], os.environ["GLIBC_TUNABLES"], args) or 0
sys.exit(cli.main())
"""


def shown(**settings):
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GLIBC_TUNABLES")} | settings
    done = subprocess.run([sys.executable, "-c", SHOW, "methods", "--json"], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_starts_again_with_settings_that_must_precede_it():
    if sys.platform == "linux":
        assert shown() == f"passive {TUNED['GLIBC_TUNABLES']} ['methods', '--json']"


def test_what_the_user_has_set_is_kept():
    assert shown(OMP_WAIT_POLICY="active", GLIBC_TUNABLES="").startswith("active  [")
