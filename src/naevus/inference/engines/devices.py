"""Names of devices: auto, cpu, cuda and cuda:N."""

from __future__ import annotations

from naevus.errors import ConfigError


def parse_device(device: str) -> tuple[str, int | None]:
    """Return the kind of a device, and the number of the GPU if one is named.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: No device has this name.

    Examples:
        >>> parse_device("cuda:1")
        ('cuda', 1)
    """
    kind, _, number = device.partition(":")
    numbered = ":" in device
    if kind not in {"auto", "cpu", "cuda"} or (
        numbered and (kind != "cuda" or not number.isdecimal())
    ):
        raise ConfigError(f"no device is called {device!r}", "use auto, cpu, cuda or cuda:N")
    return kind, int(number) if numbered else None


def check_device(device: str, engine: str | None) -> str:
    """Return the kind of a device, after checking that the engine runs on it.

    Raises:
        ConfigError: No device has this name, or OpenVINO would have to run on a GPU.
    """
    kind, _ = parse_device(device)
    if kind == "cuda" and engine == "openvino":
        raise ConfigError(
            f"the device {device} needs the engine onnxruntime: openvino runs on the CPU",
            "leave out one of them, or use the engine onnxruntime",
        )
    return kind
