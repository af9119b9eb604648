"""The one thing that pyproject.toml cannot say: the compiled kernel, which is optional."""

import sysconfig

from setuptools import Extension, setup

stable_abi = not sysconfig.get_config_var("Py_GIL_DISABLED")  # free-threaded Python has none yet
kernel = Extension(
    "gradclip.backends._kernel",
    ["src/gradclip/backends/_kernel.c"],
    depends=["src/gradclip/backends/_loops.h"],
    extra_compile_args=["-O3"],  # vectorised loops
    py_limited_api=stable_abi,
    optional=True,  # without a compiler: the same results, slower
)
setup(ext_modules=[kernel], options={"bdist_wheel": {"py_limited_api": "cp311"}} if stable_abi else {})
