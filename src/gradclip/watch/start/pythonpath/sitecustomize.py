"""Run by Python itself before the script: puts everything back as the script expects it, then waits for PyTorch.

`gradclip run` starts a plain interpreter on the plain command line, with this folder in front of PYTHONPATH. The script
therefore runs as ever; the one difference is this file, which removes its own traces first. It imports next to nothing: a
script finds no module loaded that it would not find without it, and one that never imports PyTorch pays for nothing.
"""

from __future__ import annotations

import atexit
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, *[os.pardir] * 4))
PID = os.getpid()


class Torch:
    """A finder and loader in one: lets PyTorch be imported as ever, then starts the watch."""

    def __init__(self, settings: str, quiet: bool = False) -> None:
        self.settings, self.quiet = settings, quiet
        self.loader: object = None
        self.watch: object = None
        if "torch" in sys.modules:  # a fork server has imported it
            self.start()
            return
        sys.meta_path.insert(0, self)
        atexit.register(self.at_exit)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Find PyTorch as the other finders do, and be its loader; a script may ask for the spec without importing it."""
        if name != "torch":
            return None
        others = (finder.find_spec for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (find(name, path, target) for find in others)), None)  # type: ignore[arg-type]
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self.loader, spec.loader = spec.loader, self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: ModuleSpec) -> object:
        """Leave it to the loader that was found."""
        return self.loader.create_module(spec)  # type: ignore[attr-defined]

    def exec_module(self, module: object) -> None:
        """Import PyTorch with the loader that was found, then start the watch."""
        module.__loader__ = module.__spec__.loader = self.loader  # type: ignore[attr-defined]
        self.loader.exec_module(module)  # type: ignore[attr-defined]
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self.start()

    def __getattr__(self, name: str) -> object:
        return getattr(self.loader, name)

    def start(self) -> None:
        """Import the gradclip that the command came from, wherever the script's own path leads."""
        try:
            if "gradclip" not in sys.modules:
                load("gradclip", [ROOT])
            from gradclip.watch.end.at_exit import AtExit

            self.watch = AtExit(self.settings, PATH)
            self.watch.start()
        except Exception as error:  # training must run, whatever is wrong here
            say(f"nothing is recorded: {type(error).__name__}: {error}")

    def at_exit(self) -> None:
        """Say so if there was nothing to watch."""
        if self.watch is None and os.getpid() == PID and not self.quiet:
            say("nothing was recorded: the script did not import PyTorch.")


def say(sentence: str) -> None:
    """One sentence on standard error."""
    print(f"gradclip: {sentence}", file=sys.__stderr__)


def load(name: str, path: list[str]) -> None:
    """Import a module from these folders under its name, as the import statement would."""
    spec = PathFinder.find_spec(name, path)
    if spec is not None and spec.loader is not None:
        module = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(module)


def restore() -> None:
    """Take this folder out of the path, and give PYTHONPATH back as it was."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != HERE]
    before = os.environ.pop("GRADCLIP_PYTHONPATH", None)
    if before is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = before


settings = os.environ.pop("GRADCLIP_WATCH", None)
if "CHILD" in globals():  # executed in a process that multiprocessing has started, which is as it should be otherwise
    PATH = list(sys.path)
    Torch(CHILD, quiet=True)  # type: ignore[name-defined]  # noqa: F821
elif settings is not None:
    restore()
    try:
        load("sitecustomize", sys.path)  # this file stood in front of the machine's own
    finally:
        PATH = list(sys.path)  # the script's own folder is not in it yet
        Torch(settings, quiet='"child": true' in settings)
