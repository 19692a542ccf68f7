"""A model that computes by waiting: so long a batch and an image, times what the file ``slow`` beside it says."""

import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

FIXED_SECONDS = 0.015
SECONDS_PER_IMAGE = 0.012
SLOW = Path(__file__).parent.parent / "slow"


class TritonPythonModel:
    """Scores ``image`` [16]; one that begins with a negative number fails after its time was spent."""

    def execute(self, requests):
        """Answer a batch, or fail those that are to fail."""
        images = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        factor = float(SLOW.read_text()) if SLOW.exists() else 1.0
        time.sleep(factor * (FIXED_SECONDS + SECONDS_PER_IMAGE * sum(len(image) for image in images)))
        responses = []
        for image in images:
            if image[0, 0] < 0:
                responses.append(pb_utils.InferenceResponse([], pb_utils.TritonError("vision: the lookup failed")))
                continue
            score = image.mean(axis=1, keepdims=True).astype(np.float32)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("score", score)]))
        return responses
