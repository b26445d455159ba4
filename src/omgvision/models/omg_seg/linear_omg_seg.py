"""Linear layers on tokens, as fast as a CPU has them.

Letters: B pictures, S tokens, C channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def inference_on_cpu(*tensors: Tensor) -> bool:
    """Whether shortcuts may be taken that only pay on CPU and without gradients."""
    return (
        all(tensor.device.type == "cpu" for tensor in tensors)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        and not torch.compiler.is_exporting()
    )


class TokenLinear(nn.Linear):
    """``nn.Linear`` on tokens [B, S, C], whose inference in float32 on CPU is a 1×1 convolution.

    torch gives convolutions to oneDNN and matrices to MKL, which has half of oneDNN's speed on AMD processors.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not (
            inference_on_cpu(input, self.weight)
            and input.dtype == self.weight.dtype == torch.float32
            and torch.backends.mkldnn.is_available()
        ):
            return super().forward(input)
        picture = input[:, :, None].permute(0, 3, 1, 2)  # [B, C, S, 1] in memory format channels_last: nothing moves
        # A dilation means nothing to a single tap, but without one a single thread would not use oneDNN.
        output = F.conv2d(picture, self.weight[:, :, None, None], self.bias, dilation=2)
        return output.squeeze(3).transpose(1, 2)
