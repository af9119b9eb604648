"""What Triton makes of the kernels for real GPUs; compiling needs none."""

from __future__ import annotations

import os
import warnings

import pytest

pytest.importorskip("triton", reason="Triton is not installed: there are no GPU kernels to test")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")

TABLES = {"chunks": "*i64", "addresses": "*i64"}
ARGUMENTS = {
    "measure": {**TABLES, "out": "*fp64", "cells": "i32"},
    "scale": {**TABLES, "factors": "*fp64", "step": "i32"},
    "clamp": {**TABLES, "found": "*i32", "low": "fp32", "high": "fp32"},
    "join": {"lines": "*i64", "out": "*fp64"},
    "conclude": {"cells": "*fp64", "out": "*fp64", "returned": "*fp32", "count": "i32", "limit": "fp32", "rest": "fp32"},
}


def ptx(name, capability=90, **constants):
    """The code of one kernel for one GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from gradclip.backends import triton_changing, triton_measuring

    module = triton_changing if name in ("scale", "clamp") else triton_measuring
    signature = {**ARGUMENTS[name], **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(getattr(module, name), signature, constants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Triton wants to change in its next version
        options = {"num_warps": 8, "enable_fp_fusion": True}
        return compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]


@pytest.mark.parametrize("shape", [(1, 4096), (16, 256)], ids=["tensors", "units"])
@pytest.mark.parametrize("kinds", [1, 2, 4], ids=["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["measure", "scale", "clamp"])
def test_aligned_chunks_are_read_16_bytes_at_a_time(name, kinds, shape):
    """A tile of 4,096 elements is 16 for each of 256 threads; nothing is kept in memory on the way."""
    own = {"measure": {"P": 2}, "clamp": {"WRITE": True}}.get(name, {})
    code = ptx(name, KINDS=kinds, ROWS=shape[0], COLS=shape[1], **own)
    loads = 16 * (4 if kinds == 1 else 2) // 16
    assert code.count("ld.global.v4.b32") == loads * (2 if name == "measure" else 1)  # and once more for the wide sums
    assert code.count("st.global.v4.b32") == (0 if name == "measure" else loads)
    assert "local_depot" not in code


@pytest.mark.parametrize("p", [0, 1, 2])
def test_the_rest_compiles_for_older_and_newer_gpus(p):
    for capability in (80, 90, 100):
        assert "ld.global.v4.b32" in ptx("measure", capability, P=p, KINDS=7, ROWS=1, COLS=4096)
        assert "st.global.b64" in ptx("join", capability, P=p, TILE=1024)
        assert "st.global.b64" in ptx("conclude", capability, P=p, TILE=1024)


def test_denormals_are_not_flushed():
    assert ".ftz" not in ptx("measure", P=2, KINDS=7, ROWS=1, COLS=4096)
    assert ".ftz" not in ptx("scale", KINDS=7, ROWS=1, COLS=4096)
