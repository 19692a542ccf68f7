"""A small image classifier: one linear layer over pooled pixels, at a pace like a small GPU model's."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils

FIXED_SECONDS = 0.006
SECONDS_PER_IMAGE = 0.002


class TritonPythonModel:
    """Classifies ``image`` [3, 32, 32] into ten ``scores`` and their ``label``."""

    def initialize(self, args):
        """Draw the weights once, from a fixed seed."""
        self.weights = np.random.default_rng(7).standard_normal((3 * 8 * 8, 10)).astype(np.float32)

    def execute(self, requests):
        """Answer a batch; the time grows with the number of images, as on an accelerator."""
        responses = []
        images = 0
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            images += image.shape[0]
            pooled = image.reshape(-1, 3, 8, 4, 8, 4).mean(axis=(3, 5)).reshape(image.shape[0], -1)
            scores = pooled @ self.weights
            label = scores.argmax(axis=1).astype(np.int32)[:, None]
            responses.append(
                pb_utils.InferenceResponse([pb_utils.Tensor("scores", scores), pb_utils.Tensor("label", label)])
            )
        time.sleep(FIXED_SECONDS + SECONDS_PER_IMAGE * images)
        return responses
