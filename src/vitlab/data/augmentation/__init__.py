"""What varies a training image beyond its crop: RandAugment, erasing, Mixup and CutMix; on the host or the device."""
