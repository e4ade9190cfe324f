"""One training loop; pretraining and fine-tuning are recipes of it."""
