"""The gradients of a model in one buffer, for a single sum over the ranks."""

import torch


class Gradients:
    """Gives every parameter a gradient within one buffer, with a few extra numbers at its end.

    One buffer is one message: its order of summation does not depend on timing, so a resumed run repeats it exactly.

    Parameters
    ----------
    model : all its parameters have the same dtype and device.
    extras : number of values summed along with the gradients.

    """

    def __init__(self, model: torch.nn.Module, extras: int) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        sizes = [parameter.numel() for parameter in parameters]
        self.buffer = torch.zeros(sum(sizes) + extras, dtype=parameters[0].dtype, device=parameters[0].device)
        *parts, self.extras = torch.split(self.buffer, [*sizes, extras])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def zero(self) -> None:
        """Clear the gradients and extras."""
        self.buffer.zero_()
