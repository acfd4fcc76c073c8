"""Compile every Triton kernel for compute capabilities, on a machine that needs no GPU.

    python tests/support/compile_kernels.py 75 80 90

Prints capability and name of those that compiled; fails on one that does not, and on bf16 in code
for a GPU that has none.
"""

import sys
from importlib import import_module
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

FP16, FP32 = "*fp16", "*fp32"
# By module and name, and what else tells it from another: the types of what is passed, and
# constants.
KERNELS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "decode_attention._attend": (
        {"q": FP16, "k": FP16, "v": FP16, "keys": FP16, "values": FP16, "lengths": "*i64",
         "out": FP16, "parts": FP32, "stats": FP32, "q_stride": "i32", "k_stride": "i32",
         "v_stride": "i32", "row_stride": "i64", "scale": "fp32"},
        {"HEADS": 32, "KV_HEADS": 8, "WIDTH": 128, "SIZE": 128, "BLOCK": 64, "SPLITS": 4,
         "STAGES": 1},
    ),
    "decode_attention._join": (
        {"parts": FP32, "stats": FP32, "out": FP16},
        {"WIDTH": 128, "SIZE": 128, "SPLITS": 4},
    ),
    "dequantise._dequantise": (
        {"packed": "*u8", "scales": "*u8", "scale_table": FP32, "scale_absmax": FP32,
         "offset": FP32, "table": FP32, "out": FP16, "count": "i32", "used": "i32",
         "stored": "i32"},
        {"ROWS": 64, "BYTES": 32, "SCALES": 256},
    ),
    "embedding._gather": (
        {"ids": "*i64", "table": FP16, "out": FP16, "columns": "i32"},
        {"BLOCK": 4096},
    ),
    "embedding._gather to a float32 stream": (
        {"ids": "*i64", "table": FP16, "out": FP32, "columns": "i32"},
        {"BLOCK": 4096},
    ),
    "rms_norm._forward": (
        {"x": FP16, "weight": FP16, "out": FP16, "columns": "i32", "epsilon": "fp32",
         "rows": "i32"},
        {"ROWS": 1, "BLOCK": 4096},
    ),
    "rms_norm._backward": (
        {"grad": FP16, "x": FP16, "weight": FP16, "residual": FP16, "out": FP16,
         "columns": "i32", "epsilon": "fp32", "rows": "i32"},
        {"RESIDUAL": True, "ROWS": 1, "BLOCK": 4096},
    ),
    "rms_norm._forward of narrow rows": (
        {"x": FP16, "weight": FP32, "out": FP32, "columns": "i32", "epsilon": "fp32",
         "rows": "i32"},
        {"ROWS": 8, "BLOCK": 128},
    ),
    "rms_norm._backward of narrow rows": (
        {"grad": FP32, "x": FP16, "weight": FP32, "residual": FP32, "out": FP16,
         "columns": "i32", "epsilon": "fp32", "rows": "i32"},
        {"RESIDUAL": False, "ROWS": 8, "BLOCK": 128},
    ),
    "rms_norm._forward to a float32 stream": (
        {"x": FP16, "weight": FP32, "out": FP32, "columns": "i32", "epsilon": "fp32",
         "rows": "i32"},
        {"ROWS": 1, "BLOCK": 4096},
    ),
    "rms_norm._forward of a float32 stream": (
        {"x": FP32, "weight": FP32, "out": FP16, "columns": "i32", "epsilon": "fp32",
         "rows": "i32"},
        {"ROWS": 1, "BLOCK": 4096},
    ),
    "rms_norm._backward of a float32 stream": (
        {"grad": FP16, "x": FP32, "weight": FP32, "residual": FP32, "out": FP32,
         "columns": "i32", "epsilon": "fp32", "rows": "i32"},
        {"RESIDUAL": True, "ROWS": 1, "BLOCK": 4096},
    ),
    "rope._rotate": (
        {"x": FP16, "cos": FP16, "sin": FP16, "stride": "i32", "heads": "i32", "half": "i32"},
        {"BACK": True, "HEADS": 32, "HALF": 64},
    ),
    "geglu._forward": (
        {"gate": FP16, "up": FP16, "out": FP16, "size": "i32"}, {"BLOCK": 2048}
    ),
    "geglu._backward": (
        {"grad": FP16, "gate": FP16, "up": FP16, "size": "i32"}, {"BLOCK": 2048}
    ),
    "swiglu._forward": (
        {"gate": FP16, "up": FP16, "out": FP16, "size": "i32"}, {"BLOCK": 2048}
    ),
    "swiglu._backward": (
        {"grad": FP16, "gate": FP16, "up": FP16, "size": "i32"}, {"BLOCK": 2048}
    ),
    "causal_convolution._forward": (
        {"x": FP16, "taps": FP16, "position": "*i32", "out": FP16, "channels": "i32"},
        {"TAPS": 4, "BLOCK": 512},
    ),
    "causal_convolution._backward": (
        {"grad": FP16, "x": FP16, "taps": FP16, "position": "*i32", "out": FP16, "tokens": "i32",
         "channels": "i32"},
        {"TAPS": 4, "BLOCK": 512},
    ),
    "delta_decays._forward": (
        dict.fromkeys(("kk", "qk", "step", "decay", "document", "system", "inside", "entered",
                       "leaves"), FP32) | {"rows": "i32", "pairs": "i32"},
        {"GROUP": 2, "SIZE": 64},
    ),
    "delta_decays._backward": (
        dict.fromkeys(("grad_system", "grad_inside", "grad_entered", "grad_leaves", "kk", "qk",
                       "step", "decay", "document", "grad_kk", "grad_qk", "grad_step",
                       "grad_decay"), FP32) | {"rows": "i32", "pairs": "i32"},
        {"GROUP": 2, "SIZE": 64},
    ),
    "triangular_inverse._invert": ({"lower": FP32, "out": FP32}, {"SIZE": 64}),
    "cross_entropy._loss_and_gradient": (
        {"logits": FP16, "target": "*i64", "loss": FP32, "columns": "i32"},
        {"IGNORED": -100, "BLOCK": 8192},
    ),
    "dropout._drop": (
        {"x": FP16, "out": FP16, "random": "*i64", "salt": "i64", "first": "i64", "size": "i32",
         "threshold": "i32", "scale": "fp32"},
        {"ADD": True, "BLOCK": 2048},
    ),
}  # fmt: skip


def ptx_of(kernel: Any, types: dict[str, str], constants: dict[str, Any], capability: int) -> str:
    """The PTX of `kernel`; ptxas has made machine code of it."""
    order = [parameter.name for parameter in kernel.params]
    signature = types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=kernel,
        signature={name: signature[name] for name in order},
        constexprs={(order.index(name),): value for name, value in constants.items()},
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert made.asm["cubin"]
    return str(made.asm["ptx"])


def main(capability: int) -> None:
    for name, (types, constants) in KERNELS.items():
        module, _, kernel = name.partition(".")
        found = getattr(import_module(f"trainer.kernels.{module}"), kernel.split()[0])
        ptx = ptx_of(found, types, constants, capability)
        if f".target sm_{capability}" not in ptx:
            sys.exit(f"{name}: not compiled for sm_{capability}")
        if capability < 80 and "bf16" in ptx:
            sys.exit(f"{name}: uses bf16, which sm_{capability} does not have")
        print(capability, name.split()[0])


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        main(int(argument))
