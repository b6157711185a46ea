"""A small plain CNN, which torchvision has not."""

from torch import nn

PLAIN_CNN = "plain_cnn"


class PlainCNN(nn.Module):
    """Four times convolution, batch norm, ReLU and 2x2 max pool: what a deeper one has to beat.

    Torchvision has nothing as small; the classifiers published with CIFAKE are of this kind.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
            pool = nn.MaxPool2d(2, ceil_mode=True)  # a last odd row counts too
            self.features.extend([conv, nn.BatchNorm2d(after), nn.ReLU(), pool])
