"""What doctest must not load: the GPU kernels where Triton, which has no wheels there, is not installed."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["src/gradclip/backends/triton_*.py"]
