"""How networks begin: how many channels they take, and how soon they shrink the image."""

import torch
from torch import nn

#: How a network begins. "native" is as published. "nopool" goes without the first max pool.
#: "nodown" has the first convolution and max pool at stride 1, so that nothing is lost before the
#: first stage (Gragnaniello et al., "Are GAN generated images easy to detect?", ICME 2021), at four
#: times the cost of "nopool". "small" is for images of 32 pixels: the first convolution is a 3x3
#: one at stride 1, and a max pool that follows a larger or strided one goes (He et al., "Deep
#: residual learning", CVPR 2016, section 4.2). Of pretrained 7x7 kernels the middle is kept.
STEMS = ("native", "nopool", "nodown", "small")


def set_channels(network: nn.Module, n_channels: int) -> None:
    """Replace the first convolution by a new one of ``n_channels``, if it has another number."""
    place, first = _first_convolution(network)
    if first.in_channels == n_channels:
        return
    new = nn.Conv2d(
        n_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    _replace(network, place, new)


def set_stem(network: nn.Module, stem: str) -> None:
    """Change how a network that torchvision built begins, in place: to one of `STEMS`.

    A ValueError says that the stem is not known.
    """
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}.")
    pools = [(k, m) for k, m in network.named_modules() if isinstance(m, nn.MaxPool2d)]
    place, first = _first_convolution(network)
    if stem == "nodown":
        first.stride = (1, 1)
    if stem == "small":
        if first.kernel_size == (3, 3) and first.stride == (1, 1):
            return
        _replace(network, place, _smallest(first))
        pools = pools if first.kernel_size != (3, 3) else []
    if stem != "native" and pools:
        kept = nn.MaxPool2d(3, stride=1, padding=1) if stem == "nodown" else nn.Identity()
        _replace(network, pools[0][0], kept)


def check_native(backbone: str, stem: str) -> None:
    """Refuse another stem than the published one for networks whose layers are not known here."""
    if stem != "native":
        raise ValueError(f"stem={stem!r} is for torchvision's networks; {backbone} has 'native'.")


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((k, m) for k, m in network.named_modules() if isinstance(m, nn.Conv2d))


def _replace(network: nn.Module, place: str, new: nn.Module) -> None:
    parent, _, child = place.rpartition(".")
    setattr(network.get_submodule(parent), child, new)


def _smallest(first: nn.Conv2d) -> nn.Conv2d:
    """Make the 3x3 convolution at stride 1 that has the middle of another's kernels."""
    has_bias = first.bias is not None
    new = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=has_bias)
    above, beside = ((side - 3) // 2 for side in first.kernel_size)
    with torch.no_grad():
        new.weight.copy_(first.weight[:, :, above : above + 3, beside : beside + 3])
        if first.bias is not None and new.bias is not None:
            new.bias.copy_(first.bias)
    return new
