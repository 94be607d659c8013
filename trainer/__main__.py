"""`python -m trainer`; or `python PATH/trainer`, from any folder and with a Python that ignores the current one."""

import runpy
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

if __name__ == "__main__":
    if __package__:
        from .cli.main import main

        sys.exit(main())
    # Python put the folder itself on its path, where its modules have no package. The folder that it lies in does not
    # belong there either: it may be that of another Python's packages.
    folder = Path(__file__).absolute().parent
    del sys.path[0]
    spec = spec_from_file_location(folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[folder.name] = package = module_from_spec(spec)
    spec.loader.exec_module(package)
    runpy.run_module(folder.name, run_name="__main__", alter_sys=True)
