"""`python -m trainer`; or `python PATH/trainer`, from any folder and with a Python that ignores the current one."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    if __package__:
        from .cli.main import main

        sys.exit(main())
    # Python put the folder itself on its path; its modules need the one that it lies in.
    folder = Path(__file__).absolute().parent
    sys.path[0] = str(folder.parent)
    runpy.run_module(folder.name, run_name="__main__", alter_sys=True)
