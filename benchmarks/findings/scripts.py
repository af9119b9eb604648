"""The scripts of the suite, and what their docstrings say should be found in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HERE", "Script", "parse", "scripts"]

HERE = Path(__file__).parent
UNSEEN = "unseen"
FOLDERS = ("sick", "healthy", f"{UNSEEN}/sick", f"{UNSEEN}/healthy")
ALSO_FINE = "Also fine"
EXPECTS = "Expects"
RANKS = "Ranks"


@dataclass(frozen=True)
class Script:
    """A training script whose fault, or health, is known."""

    name: str
    """Folder and file, ``sick/clip_after_step`` or ``unseen/sick/dqn_clips_the_target``."""
    what: str
    """The first line of its docstring."""
    expects: tuple[str, ...] = ()
    """Any of these findings names the fault; none for a healthy script."""
    also_fine: tuple[str, ...] = ()
    """Findings that are true of the script as well, without naming its fault."""
    ranks: int = 1
    """How many processes train together in it, under torchrun."""

    @property
    def sick(self) -> bool:
        """Whether it has a fault."""
        return bool(self.expects)

    @property
    def unseen(self) -> bool:
        """Whether it is of the part that was written after the rules, without knowledge of them."""
        return self.name.startswith(f"{UNSEEN}/")

    @property
    def path(self) -> Path:
        """The file."""
        return HERE / f"{self.name}.py"


def scripts(only: str = "") -> list[Script]:
    """Return the scripts whose name contains ``only``, in each part the sick ones first."""
    paths = [path for folder in FOLDERS for path in sorted((HERE / folder).glob("*.py"))]
    found = [parse(path.relative_to(HERE).with_suffix("").as_posix(), path.read_text()) for path in paths]
    return [script for script in found if only in script.name]


def parse(name: str, source: str) -> Script:
    r"""Read a script's docstring.

    Raises:
        ValueError: it has no docstring, or says what no script of its folder should.

    >>> parse("sick/a", '"A net.\\n\\nExpects: dead-layer, vanishing-in-depth\\nAlso fine: update-too-small\\n"')
    Script(name='sick/a', what='A net.', expects=('dead-layer', 'vanishing-in-depth'), also_fine=('update-too-small',))
    """
    said = ast.get_docstring(ast.parse(source))
    if not said:
        raise ValueError(f"{name} needs a docstring that says what it is")
    expects, also = _names(said, EXPECTS), _names(said, ALSO_FINE)
    if (Path(name).parent.name == "sick") != bool(expects):
        raise ValueError(f"{name}: a sick script, and only that, has a line '{EXPECTS}: clip-after-step' in its docstring")
    if also and not expects:
        raise ValueError(f"{name}: nothing is fine to find in a healthy script; leave '{ALSO_FINE}' out")
    if twice := set(expects) & set(also):
        raise ValueError(f"{name} names {_listed(twice)} both as its fault and as its companion")
    return Script(name, said.splitlines()[0], expects, also, int(next(iter(_names(said, RANKS)), 1)))


def _names(said: str, label: str) -> tuple[str, ...]:
    found = re.search(rf"^{label}:(.*)$", said, re.MULTILINE)
    return tuple(name.strip() for name in found[1].split(",") if name.strip()) if found else ()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
