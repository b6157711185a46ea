"""The first and last layers of IID-Net (Wu & Zhou, 2022): enhancement and attention."""

import torch
from torch import nn

from cnnsvm.features.preprocessing import PREPROCESSING, InputLayer

#: Fixed high-pass filters of each colour.
FIXED = PREPROCESSING["residual_bank"]
#: Most places that one is averaged with.
TOP = 15
#: Ranks count as long as their mean cosine similarity is at least this.
SIMILAR = 0.5
#: Most similarities held at a time: 16 MB in float32.
SIMILARITIES = 2**22

#: Squared distance from the centre -> weight: how alike neighbours are on average. These are the
#: kernel of Wu & Zhou, made symmetric.
_LIKENESS = {0: 0.0715, 1: 0.0434, 2: 0.0394, 4: 0.0393, 5: 0.0370, 8: 0.0359}


def constrain(weight: torch.Tensor) -> torch.Tensor:
    """Find the nearest kernels whose centre is -1 and whose other weights sum to 1.

    Bayar & Stamm (IEEE TIFS 13(11), 2018) ask for both and divide by the sum, which bursts when it
    nears 0. The nearest kernels, in the Euclidean sense, always exist. Takes and returns a float
    tensor of shape (n_outputs, n_inputs, k, k), k odd.
    """
    n_others = weight.shape[2] * weight.shape[3] - 1
    centre = torch.zeros_like(weight)
    centre[:, :, weight.shape[2] // 2, weight.shape[3] // 2] = 1
    others = weight * (1 - centre)
    missing = (1 - others.sum(dim=(2, 3), keepdim=True)) / n_others
    return (others + missing) * (1 - centre) - centre


class ConstrainedConv(nn.Module):
    """Convolution whose kernels predict each pixel from its neighbours (Bayar & Stamm, 2018).

    The constraint is part of the forward pass and changes no parameter, so that replicas on many
    devices compute what one does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, 3, 5, 5))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Filter float (N, C, H, W); in float32, as residuals are small differences."""
        reach = self.weight.shape[2] // 2
        padded = nn.functional.pad(values.float(), (reach,) * 4, mode="replicate")
        with torch.autocast(values.device.type, enabled=False):
            return nn.functional.conv2d(padded, constrain(self.weight.float()))


class Enhancement(nn.Module):
    """Plain, constrained and fixed high-pass convolutions, together (Wu & Zhou, 2022).

    Two things are not as published. `FIXED` holds three filters beside the authors' three (across,
    down, along the diagonal), and a batch norm brings the three kinds to one scale. With the three
    filters a network of 0.9 million weights had learnt nothing of the round trips of a VAE in 300
    steps of 8 patches of 64 pixels; with six its pixel AUC was .93 after 240, and .85 without the
    batch norm (one run each).
    """

    n_outputs = 3 + 3 + FIXED.n_channels

    def __init__(self) -> None:
        super().__init__()
        self.see = InputLayer(PREPROCESSING["imagenet"])
        self.plain = nn.Conv2d(3, 3, 5, padding=2, bias=False)
        self.constrained = ConstrainedConv()
        self.pre_filter = InputLayer(FIXED)
        self.norm = nn.BatchNorm2d(self.n_outputs)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map uint8 (N, 3, H, W) to float (N, n_outputs, H, W)."""
        grey_levels = pixels.float() * FIXED.scale
        parts = [
            self.plain(self.see(pixels)).float(),
            self.constrained(grey_levels),
            self.pre_filter(pixels).float(),
        ]
        return self.norm(torch.cat(parts, dim=1))


class GlobalAttention(nn.Module):
    """Average each place with its most similar ones (Wu & Zhou, "global attention").

    Their number T is found for each image: the ranks whose similarity, averaged over the
    places, reaches `SIMILAR`, but 2 at least and `TOP` at most. (The authors' code takes one T
    for a batch, by which an image's result would depend on its neighbours.)

    Similarities are computed in blocks of `SIMILARITIES` numbers, or of one row where a row is
    longer: memory grows with the number P of places, time with its square.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map float (N, C, H, W) to float32 of that shape."""
        n, channels, height, width = features.shape
        with torch.autocast(features.device.type, enabled=False):
            places = features.float().flatten(2).transpose(1, 2)
            with torch.no_grad():  # which places are alike is a choice, not a function
                chosen, weights = most_similar(places)
                first = torch.arange(n, device=features.device) * height * width
                rows = (chosen + first[:, None, None]).flatten(0, 1)
            mean = nn.functional.embedding_bag(
                rows, places.flatten(0, 1), mode="sum", per_sample_weights=weights.flatten(0, 1)
            )
        return mean.view(n, height, width, channels).permute(0, 3, 1, 2)


def most_similar(places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find for each place, float32 (N, P, C), those that it is averaged with.

    Returns int64 and float32 tensors of shape (N, P, k), k = min(`TOP`, P): places by falling
    cosine similarity, and 1 / T for the first T of them and 0 for the rest.
    """
    n, n_places, _ = places.shape
    k = min(TOP, n_places)
    unit = nn.functional.normalize(places, dim=2)
    block = max(1, SIMILARITIES // (n * n_places))
    # allocated first: small results among the blocks would split the memory that those leave
    similarity = places.new_empty(n, n_places, k)
    chosen = torch.empty(n, n_places, k, dtype=torch.int64, device=places.device)
    for start in range(0, n_places, block):
        rows = slice(start, start + block)
        found = (unit[:, rows] @ unit.mT).topk(k, dim=2)
        similarity[:, rows], chosen[:, rows] = found.values, found.indices
    alike = (similarity.mean(dim=1, keepdim=True) >= SIMILAR).sum(dim=2, keepdim=True)
    n_used = alike.clamp(min=min(2, k))
    ranks = torch.arange(k, device=places.device)
    weights = (ranks < n_used) / n_used.float()
    return chosen, weights.expand(n, n_places, k)


class LocalAttention(nn.Module):
    """Average each place with its 5x5 neighbours by their usual likeness ("local attention")."""

    kernel: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        steps = range(-2, 3)
        kernel = torch.tensor([[_LIKENESS[y * y + x * x] for x in steps] for y in steps])
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map float (N, C, H, W) to the same shape."""
        channels = features.shape[1]
        weight = self.kernel.to(features.dtype).expand(channels, 1, 5, 5)
        padded = nn.functional.pad(features, (2, 2, 2, 2), mode="replicate")
        return nn.functional.conv2d(padded, weight, groups=channels)
