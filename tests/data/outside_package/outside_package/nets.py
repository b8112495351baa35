"""Own networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Small(nn.Module):
    """A segmentation network with one level."""

    stride = 2
    normalisation = ((0.7, 0.55, 0.5), (0.2, 0.2, 0.2))

    def __init__(self, outputs: int, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images N x 3 x H x W to logits N x outputs x H x W."""
        return functional.interpolate(
            self.head(self.down(images).relu()), scale_factor=2.0, mode="bilinear"
        )


class Backbone(nn.Module):
    """A classifier's backbone, with the methods of timm's."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())

    def forward_features(self, images: Tensor) -> Tensor:
        """Map images N x 3 x H x W to feature maps N x 8 x h x w."""
        maps: Tensor = self.layers(images)
        return maps

    def forward_head(self, features: Tensor) -> Tensor:
        """Pool feature maps to N x 8; as means, they give class activation maps."""
        return features.mean((2, 3))
