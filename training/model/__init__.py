"""What is trained, and where it is kept: configuration, losses, checkpoints, MLflow."""
