"""A recommendation ranker: a two-layer network over 64 features."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Scores ``features`` [64] between 0 and 1."""

    def initialize(self, args):
        """Draw the weights once, from a fixed seed."""
        draw = np.random.default_rng(11)
        self.first = draw.standard_normal((64, 32)).astype(np.float32) / 8
        self.second = draw.standard_normal((32, 1)).astype(np.float32)

    def execute(self, requests):
        """Answer each request on its own."""
        responses = []
        for request in requests:
            features = pb_utils.get_input_tensor_by_name(request, "features").as_numpy()
            score = 1 / (1 + np.exp(-(np.maximum(features @ self.first, 0) @ self.second)))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("score", score.astype(np.float32))]))
        return responses
