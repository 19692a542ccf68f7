"""A model whose feature store fails now and then: an error response, or an exception out of execute()."""

import numpy as np
import triton_python_backend_utils as pb_utils

ERROR_SHARE = 0.06
EXCEPTION_SHARE = 0.02


class TritonPythonModel:
    """Sums ``x`` [16] into ``y``, when it can. An ``x`` that begins with -1 always fails, with -2 always raises."""

    def initialize(self, args):
        """Seed the failures, so that a run can be repeated."""
        self.draw = np.random.default_rng(3)

    def execute(self, requests):
        """Answer, fail or raise."""
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            lot = self.draw.random()
            if x[0, 0] == -2 or (x[0, 0] >= 0 and lot < EXCEPTION_SHARE):
                raise RuntimeError("flaky: feature store connection lost")
            if x[0, 0] == -1 or (x[0, 0] >= 0 and lot < EXCEPTION_SHARE + ERROR_SHARE):
                error = pb_utils.TritonError("flaky: feature store lookup failed")
                responses.append(pb_utils.InferenceResponse([], error))
                continue
            y = x.sum(axis=1, keepdims=True).astype(np.float32)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        return responses
