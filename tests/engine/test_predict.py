"""What torch and the libraries below it say when memory runs out is told from every other error."""

from __future__ import annotations

import pytest
import torch

from napari_tileseg.engine.predict import out_of_memory


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (torch.OutOfMemoryError(), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.90 GiB, other allocations: 48.00 KiB, max allowed: 9.07 GiB)."), True),
        (RuntimeError("Invalid buffer size: 9.75 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not execute a primitive"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
    ids=[
        "torch",
        "Python",
        "MPS",
        "MPS, one buffer",
        "cuBLAS",
        "oneDNN",
        "oneDNN, later",
        "oneDNN, one block",
        "C++",
        "oneDNN knows no such thing",
        "another",
    ],
)
def test_every_device_may_say_that_memory_ran_out(error: Exception, means: bool) -> None:
    assert out_of_memory(error) == means
