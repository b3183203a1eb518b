"""The `bus` command as a user runs it: in a folder, without any setting of this process."""

import os
import subprocess
import sys


def bus(home, *arguments, check=True, **more):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("BUS_")}
    done = subprocess.run(
        [sys.executable, "-m", "bus.cli.main", *arguments],
        cwd=home,
        env={**environ, **more},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done
