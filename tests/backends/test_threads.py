"""The kernel among threads and processes: the same bits whoever does the work."""

from __future__ import annotations

import subprocess
import sys
import threading
from array import array
from pathlib import Path

import pytest
import torch
from torch import nn

import gradclip
from gradclip.backends import cpu
from tests.backends.support import describe

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not cpu.enabled(), reason="the kernel was not built, or is switched off")


@pytest.fixture(params=["OpenMP's", "Python's"])
def threads(request, monkeypatch):
    """Set the number of threads, of either kind, and share even small work."""
    before = torch.get_num_threads()
    monkeypatch.setattr(cpu, "_ALONE", 0)
    if request.param == "Python's":
        monkeypatch.setattr(cpu, "_borrowed", False)
    elif not cpu._borrowed:
        pytest.skip("PyTorch brought no OpenMP runtime that the kernel could share")
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def tensors():
    """A large one, and many small ones."""
    return [torch.randn(1_000_003), *(torch.randn(n % 300) for n in range(2000)), torch.randn(300_000, dtype=torch.float64)]


def test_the_number_of_threads_does_not_change_a_bit(threads, tensors):
    found, after = [], []
    for count in (1, 2, 3, 2, 1):
        threads(count)
        own = [t.clone() for t in tensors]
        table = describe(own)
        found.append({p: table.norms(p) for p in (1, 2, float("inf"))})
        table.scale(array("d", [0.3]) * len(own))
        assert table.clamp(-0.2, 0.2)[1]
        after.append(torch.cat([t.double() for t in own]))
    assert all(f == found[0] for f in found)
    assert all(torch.equal(a, after[0]) for a in after)
    torch.testing.assert_close(after[0], torch.cat([(t * 0.3).clamp(-0.2, 0.2).double() for t in tensors]))


def test_several_threads_may_clip_at_once(threads):
    threads(2)
    results = {}

    def clip(number):
        parameter = nn.Parameter(torch.zeros(400_000))
        for _ in range(10):
            parameter.grad = torch.full((400_000,), float(number))
            results[number] = (
                float(gradclip.clip_([parameter], gradclip.global_norm(1.0)).norm),
                float(parameter.grad.double().norm()),
            )

    workers = [threading.Thread(target=clip, args=(number,)) for number in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number in range(1, 5):
        assert results[number] == pytest.approx((number * 400_000**0.5, 1.0), rel=1e-5)


FORKS = """
import os, sys, warnings
from array import array
import torch
from gradclip.backends import cpu
from tests.backends.support import describe

warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
cpu._ALONE = 0
torch.set_num_threads(2)
if sys.argv[1] == "Python's":
    cpu._borrowed = False
tensors = [torch.randn(1_000_003), torch.randn(300)]
want = describe(tensors).norms(2)
assert cpu._borrowed or cpu._workers is not None
child = os.fork()
table = describe(tensors)
assert table.norms(2) == want
table.scale(array("d", [0.5, 0.5]))
assert abs(table.norms(2)[0] - want[0] / 2) < 1e-6 * want[0]
if child == 0:
    assert not cpu._borrowed  # OpenMP's threads stayed behind
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.parametrize("kind", ["OpenMP's", "Python's"])
def test_a_forked_child_clips(kind):
    """The parent's threads do not exist in the child. (In a process of its own: other libraries here do not bear a fork.)"""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, kind], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


LOCKED = """
import os, sys, threading, time, warnings
import torch
import gradclip
from gradclip.backends import chunks
from gradclip.torch.plan import Plan
from gradclip.torch.targets import resolve

warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
parameter = torch.nn.Parameter(torch.ones(3))
in_backward = gradclip.InBackward([parameter], "tensor_norm:1.0")
inside, end = threading.Event(), threading.Event()


class Slow(gradclip.PerTensor):
    def partition(self, entries):
        inside.set()
        end.wait()


def laying_out():
    Plan(gradclip.Clipping(Slow(), gradclip.L2, gradclip.Constant(1.0)), resolve([parameter])).partition


def holding(lock):
    with lock:
        inside.set()
        end.wait()


def clip():
    other = torch.nn.Parameter(torch.ones(2))
    other.grad = torch.tensor([3.0, 4.0])
    assert float(gradclip.clip_([other], "agc:0.01").norm) == 5


def clip_in_backward():
    (2 * parameter).sum().backward()
    assert abs(float(parameter.grad.norm()) - 1) < 1e-6


def look_up():
    assert chunks.layout_of(torch.device("cpu"), (torch.float32,), (3,), None).cells == 1


elsewhere, here = {
    "a plan": (laying_out, clip),
    "a gradient": (lambda: holding(in_backward._lock), clip_in_backward),
    "a table": (lambda: holding(chunks._layouts._lock), look_up),
}[sys.argv[1]]
threading.Thread(target=elsewhere).start()
inside.wait()
child = os.fork()
if child == 0:
    here()
    os._exit(7)
deadline = time.monotonic() + 30
while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
    time.sleep(0.01)
if not ended[0]:
    os.kill(child, 9)
end.set()
assert ended[0], "the child waits for a thread that it does not have"
assert os.waitstatus_to_exitcode(ended[1]) == 7
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.parametrize("busy_with", ["a plan", "a gradient", "a table"])
def test_a_child_forked_while_another_thread_is_busy_clips(busy_with):
    """Whatever that thread holds is held forever in the child, so the child must not ask for it."""
    done = subprocess.run([sys.executable, "-c", LOCKED, busy_with], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_in_another_thread_is_raised(threads):
    threads(2)

    def work(part, parts, threads):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cpu._shared(work, 2)


def test_while_the_interpreter_shuts_down_one_thread_does_it_all(threads, tensors, monkeypatch):
    threads(2)
    want = describe(tensors).norms(2)
    pool = cpu.ThreadPoolExecutor(1)
    pool.shutdown()
    monkeypatch.setattr(cpu, "_workers", pool)
    assert describe(tensors).norms(2) == want
