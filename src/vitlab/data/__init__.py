"""Images and labels: where they come from, in which order, decoded, varied and put into batches."""
