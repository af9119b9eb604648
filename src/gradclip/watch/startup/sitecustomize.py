"""Run by Python itself before the script: puts everything back as the script expects it, then waits for PyTorch.

`gradclip run` starts a plain interpreter on the plain command line, with this folder in front of PYTHONPATH. The script
therefore runs as ever; the one difference is this file, which removes its own traces first.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _start() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    settings = os.environ.pop("GRADCLIP_WATCH", None)
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and os.path.abspath(p) != here]
    if paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    else:
        os.environ.pop("PYTHONPATH", None)
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here]
    _run_the_machines_own()
    if settings:
        from gradclip.watch.launch import begin

        begin(settings)


def _run_the_machines_own() -> None:
    """This file stood in front of the sitecustomize that Python would have run; run that one under its name."""
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = sys.modules["sitecustomize"] = module_from_spec(spec)
        spec.loader.exec_module(module)


_start()
