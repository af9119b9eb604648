"""Prints what a script can see of how it is run, and what its children see."""

import importlib.util
import os
import subprocess
import sys

print(sys.argv, sys.path, sys.flags, sys.warnoptions)
print({k: v for k, v in os.environ.items() if k.startswith(("PYTHON", "GRADCLIP"))})
print(__name__, __file__, __spec__, __package__, sys.modules["__main__"].__file__, sys.excepthook is sys.__excepthook__)
print([m for m in sys.modules if m.startswith(("gradclip", "numpy", "json", "subprocess_", "sqlite3"))], os.getcwd())
print(importlib.util.find_spec("torch").origin)

import torch  # noqa: E402

print(type(torch.__loader__), type(torch.__spec__.loader), sys.excepthook is sys.__excepthook__)
child = "import os, sys; print('torch' in sys.modules, [k for k in os.environ if k.startswith(('PYTHON', 'GRADCLIP'))])"
subprocess.run([sys.executable, "-c", child + "; print([m for m in sys.modules if 'gradclip' in m])"], check=True)
weight = torch.ones(2, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=0.1)
weight.sum().backward()
optimizer.step()
print(weight.tolist(), [type(finder) for finder in sys.meta_path])
