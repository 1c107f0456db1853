"""What a training learns from: clips and photos to faces, pairs, batches."""
