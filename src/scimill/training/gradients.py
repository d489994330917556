"""The gradients of a model in one buffer, which one sum over the ranks adds up."""

import torch


class Gradients:
    """Gives every parameter a gradient that is a part of one buffer, with a few numbers more at its end.

    One buffer is one message: its order of summation does not depend on timing, so a resumed run repeats it exactly.

    Parameters
    ----------
    model : its parameters are all of one dtype and on one device.
    extras : how many numbers travel with the gradients.

    """

    def __init__(self, model: torch.nn.Module, extras: int) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        sizes = [parameter.numel() for parameter in parameters]
        self.buffer = torch.zeros(sum(sizes) + extras, dtype=parameters[0].dtype, device=parameters[0].device)
        *parts, self.extras = torch.split(self.buffer, [*sizes, extras])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def zero(self) -> None:
        """Forget the last step's."""
        self.buffer.zero_()
