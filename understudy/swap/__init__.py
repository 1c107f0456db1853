"""How a face is swapped: from a frame and its faces to the frame with the persona in it."""
