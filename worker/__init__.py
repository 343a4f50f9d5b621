"""The worker: page jobs become text.

Each of its processes imports this package first. ONNX Runtime would resolve a host of its maker and write a device id below the
home directory; it reads this variable when it is imported, by whichever engine.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
