"""Small plain CNNs, which torchvision has not."""

from torch import nn

PLAIN_CNN = "plain_cnn"
PLAIN_CNN_7 = "plain_cnn_7"


class PlainCNN(nn.Module):
    """Four times convolution, batch norm, ReLU and 2x2 max pool: what a deeper one has to beat.

    Torchvision has nothing as small; the classifiers published with CIFAKE are of this kind.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            self.features.extend(_convolution(before, after))
            self.features.append(_pool())


class PlainCNN7(nn.Module):
    """Seven convolutions: one at full size, then three stages of two that halve it.

    The pool of a stage stands behind its first convolution, before the batch norm, as in Jordan,
    "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv:2404.00498), whose first layer is a
    fixed one instead. For pictures of 32 pixels: 60 million multiply-adds, a seventh of those of
    a ResNet-18 that is cut after its third stage.
    """

    def __init__(self, widths: tuple[int, ...] = (48, 128, 192)) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("first", nn.Sequential(*_convolution(3, FIRST_WIDTH)))
        for number, (before, after) in enumerate(
            zip((FIRST_WIDTH, *widths[:-1]), widths, strict=True), start=1
        ):
            convolution, *rest = _convolution(before, after)
            stage = nn.Sequential(convolution, _pool(), *rest, *_convolution(after, after))
            self.features.add_module(f"stage{number}", stage)


FIRST_WIDTH = 24


def _convolution(before: int, after: int) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(after), nn.ReLU()]


def _pool() -> nn.Module:
    return nn.MaxPool2d(2, ceil_mode=True)  # a last odd row counts too
