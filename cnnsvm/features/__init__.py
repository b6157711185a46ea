"""From images to embeddings: crops, augmentation, torchvision backbones, fine-tuning."""
