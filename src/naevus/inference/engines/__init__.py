"""What runs an ONNX graph: OpenVINO, or ONNX Runtime."""

from naevus.inference.engines.choice import open_engine, streams_for
from naevus.inference.engines.engine import Engine, EngineName, Outputs, Precision
from naevus.inference.engines.onnxruntime import OnnxRuntimeEngine
from naevus.inference.engines.openvino import OpenVINOEngine

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
