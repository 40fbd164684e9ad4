"""What a detector may learn besides embeddings and boxes: masks, a closed set of classes, and long-tailed classes."""
