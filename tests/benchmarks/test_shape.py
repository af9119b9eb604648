"""The measurements of the package's shape, on packages so small that the answers are known."""

from __future__ import annotations

import ast
import importlib
import sys
import threading

import pytest

from benchmarks import shape, shape_trace
from benchmarks.shape_calls import Calls, calls_of
from benchmarks.shape_entries import Entries
from benchmarks.shape_source import Source, backend_questions, class_tests, import_cycles, lines, subclasses


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that writes a package and returns its source."""

    def write(files, name="tiny"):
        for path, text in {"__init__.py": "", **files}.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            (file.parent / "__init__.py").touch()
        return Source(tmp_path / name)

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "tiny"]:
        del sys.modules[name]


def trees(text):
    return {"torch/x.py": ast.parse(text)}


class TestCycles:
    def test_a_late_import_closes_a_cycle(self, package):
        source = package({
            "a.py": "from tiny.b import g\ndef f(): g()\n",
            "b.py": "import tiny.c\ndef g(): pass\n",
            "c.py": "def late():\n    from tiny import a\n    return a\n",
            "d.py": "from tiny.a import f\n",
        })  # fmt: skip
        assert import_cycles(source) == [["a.py", "b.py", "c.py"]]

    @pytest.mark.parametrize("guard", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
    def test_what_only_a_type_checker_reads_is_none(self, package, guard):
        source = package({"a.py": "import tiny.b\n", "b.py": f"if {guard}:\n    from tiny.a import f\nelse:\n    f = None\n"})
        assert import_cycles(source) == []
        source = package({"b.py": f"if {guard}:\n    pass\nelse:\n    from tiny.a import f\n"})
        assert import_cycles(source) == [["a.py", "b.py"]]

    def test_a_package_takes_part_where_something_is_taken_from_itself(self, package):
        files = {"p/__init__.py": "from tiny.p.a import f\n", "p/a.py": "from tiny.p import b\n", "p/b.py": "f = 1\n"}
        assert import_cycles(package(files)) == []
        assert import_cycles(package({**files, "p/b.py": "from tiny.p import f\n"})) == [["p/__init__.py", "p/a.py", "p/b.py"]]

    def test_relative_imports_and_names_in_strings(self, package):
        source = package({
            "p/__init__.py": "from .a import f\n",
            "p/a.py": "from . import b\nfrom ..q import c\n",
            "p/b.py": "from .a import f\n",
            "q.py": "from importlib import import_module\nc = import_module('tiny.p.a')\n",
        })  # fmt: skip
        assert import_cycles(source) == [["p/a.py", "p/b.py"]]

    def test_two_cycles_the_larger_first(self, package):
        files = {f"{a}.py": f"import tiny.{b}\n" for a, b in ["ab", "ba", "xy", "yz", "zx", "ax"]}
        files["a.py"] = "import tiny.b, tiny.x\n"
        assert import_cycles(package(files)) == [["x.py", "y.py", "z.py"], ["a.py", "b.py"]]


def test_lines(package):
    assert lines(package({"a.py": "x = 1\n\n# end\n", "p/b.py": "y = 2\n", "data.txt": "no\n"})) == 4


def test_subclasses_of_subclasses_in_other_files(package):
    source = package({
        "a.py": "class Scope(ABC): ...\nclass Other: ...\n",
        "b.py": "class Most(Least): ...\nclass Least(a.Scope): ...\nclass Generic(Scope[int]): ...\n",
    })  # fmt: skip
    assert subclasses(source, ["Scope"]) == {"Scope", "Least", "Most", "Generic"}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("isinstance(x, Hard)", 1),
        ("isinstance(x, (list, rescales.Hard)) and isinstance(x, Hard | None)", 2),
        ("issubclass(x, Soft)", 1),
        ("type(x) is Hard or type(x) in (Hard, Soft)", 2),
        ("match x:\n    case Hard(): pass\n    case list(): pass", 1),
        ("isinstance(x, Harder) or Hard(x) or x is Hard or isinstance(Hard, type)", 0),
    ],
)
def test_class_tests(text, count):
    assert class_tests(trees(text), {"Hard", "Soft"}) == ({"torch/x.py": count} if count else {})


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("kernel.describe(x) or describe(x)", (2, 0, 0, 0)),
        ("def describe(x): return _kernel.describe(x)", (0, 0, 0, 0)),
        ("table.left_out and f(left_out=1)\nfor i in table.left_out: pass", (0, 2, 0, 0)),
        ("torch.compiler.is_compiling() or is_compiling()", (0, 0, 2, 0)),
        ("x.device.type == 'cpu' or device.type or x.is_cuda or x.type or device.index", (0, 0, 0, 3)),
    ],
)
def test_questions_about_the_backend(text, counts):
    found = backend_questions(trees(text), None)
    assert tuple(sum(where.values()) for where in found.values()) == counts
    assert not any(backend_questions(trees(text), "torch/x.py").values())


CALLER = """
from tiny.helper import Helper, twice, run_in_thread

def work():
    def inner():
        return sum(i for i in [1, 2])
    inner()
    twice()
    return Helper().help()

def threaded():
    run_in_thread(twice)
"""
HELPER = '''
import threading

def twice():
    """Do it twice."""
    one(), one()

def one(): len([])

class Helper:
    """Help."""
    def __init__(self): pass
    def help(self):
        import tiny.late
        return one()

def run_in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
'''
LATE = "from tiny.helper import one\n\none()\n"


@pytest.fixture
def caller(package):
    source = package({"caller.py": CALLER, "helper.py": HELPER, "late.py": LATE})
    return importlib.import_module("tiny.caller"), source.root


def test_calls_are_counted(caller):
    module, root = caller
    module.work()  # imports tiny.late
    # work, inner, its generator three times, twice, one, one, __init__, help, one
    assert calls_of(module.work, root) == Calls(11, 2)
    assert calls_of(lambda: len([]), root) == Calls(0, 0)
    assert sys.getprofile() is None


def test_entries_are_first_calls_from_other_files_and_no_imports(caller):
    module, root = caller
    found = []
    sys.setprofile(Entries(str(root), found.append))
    try:
        module.work()
        module.work()
    finally:
        sys.setprofile(None)
    assert found == [
        ("caller.py", "work"),
        ("helper.py", "twice"),
        ("helper.py", "Helper.__init__"),
        ("helper.py", "Helper.help"),
    ]


def test_each_thread_has_entries_of_its_own(caller):
    module, root = caller
    found = []
    entries = Entries(str(root), lambda entry: found.append((threading.current_thread() is threading.main_thread(), *entry)))
    threading.setprofile(entries)
    sys.setprofile(entries)
    try:
        module.work()
        module.threaded()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert [entry for entry in found if entry[1:] == ("helper.py", "twice")] == [
        (True, "helper.py", "twice"),
        (False, "helper.py", "twice"),
    ]


def test_a_step_of_each_file(caller, monkeypatch):
    monkeypatch.setattr(shape_trace, "PACKAGE", caller[1])
    shape_trace._documented.cache_clear()
    entries = [
        ("caller.py", "work"),
        ("helper.py", "<module>"),
        ("helper.py", "Helper.__init__"),
        ("caller.py", "work.<locals>.inner"),
        ("helper.py", "twice"),
        ("helper.py", "Helper.__len__"),
        ("late.py", "<lambda>"),
    ]
    assert shape_trace.file_steps(entries) == ["`caller.py`: `work`", "`helper.py`: `Helper`, `twice` — Help."]
    many = [("caller.py", f"f{i}") for i in range(shape_trace.SHOWN + 2)]
    assert shape_trace.file_steps(many)[0].endswith(f"`f{shape_trace.SHOWN - 1}` and 2 more")
    shape_trace._documented.cache_clear()


def test_a_step_of_the_files_of_one_folder(package, monkeypatch):
    source = package({"a/__init__.py": '"""First.\n\nMore.\n"""\n', "b/__init__.py": '"""Second."""\n'})
    monkeypatch.setattr(shape_trace, "PACKAGE", source.root)
    shape_trace._documented.cache_clear()
    files = ["__main__.py", "a/one.py", "b/one.py", "a/two.py", "a/one.py", "b/two.py", "b/deep/three.py", "a/three.py"]
    assert shape_trace.folder_steps((file, "f") for file in files) == [
        "`a/`: `one.py`, `b/one.py`, `two.py` — First.",
        "`b/`: `two.py`, `deep/three.py` — Second.",
        "`a/`: `three.py`",
    ]
    shape_trace._documented.cache_clear()


def test_the_table_marks_what_misses_its_bound(package):
    source = package(
        {"torch/a.py": "import tiny.torch.b\n", "torch/b.py": "import tiny.torch.a\n", "backends/chooser.py": "x.is_cuda\n"}
    )
    assert shape.chooser_of(source) == "backends/chooser.py"
    rows = {row.what.partition(":")[0]: row for row in shape.read(source, "backends/chooser.py")}
    cycles = rows["import cycles"]
    assert (cycles.now, cycles.bound, cycles.holds) == ("1: of 2 files", "0", False)
    assert cycles.where == ["torch/a.py torch/b.py"]
    assert rows["lines of Python"].holds
    assert rows["lines of Python"].now == "3"
    table = shape.printed(list(rows.values()), "title")
    assert list(table.columns[3].cells) == ["missed" if row is cycles else "" for row in rows.values()]


def test_what_is_not_timed_of_this_package(capsys):
    shape.main(["--fast"])
    shown = capsys.readouterr().out
    assert "clip_(model, recipe): calls / files" in shown
    assert "import cycles" in shown
    assert "a recorded step" not in shown


def test_a_chooser_that_does_not_exist(capsys):
    with pytest.raises(SystemExit):
        shape.main(["--chooser", "backends/nobody.py"])
    assert "there is no backends/nobody.py" in capsys.readouterr().err
