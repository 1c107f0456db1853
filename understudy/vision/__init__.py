"""Where the faces are: detection, mesh, pose, tracking, alignment, recognition."""
