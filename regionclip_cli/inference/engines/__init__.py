"""The engines that run a model: torch (any model, any device) and ONNX Runtime (exported graphs on a CPU)."""
