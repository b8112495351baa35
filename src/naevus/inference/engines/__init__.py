"""What runs an ONNX graph: OpenVINO, or ONNX Runtime."""

from naevus.inference.engines.choice import open_engine, streams_for
from naevus.inference.engines.engine import Engine, Outputs, Precision
from naevus.inference.engines.onnxruntime import OnnxRuntimeEngine
from naevus.inference.engines.openvino import OpenVINOEngine
from naevus.types import EngineName

__all__ = [
    "Engine",
    "EngineName",
    "OnnxRuntimeEngine",
    "OpenVINOEngine",
    "Outputs",
    "Precision",
    "open_engine",
    "streams_for",
]
