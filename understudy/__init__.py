"""The face domain: from a clip's faces to a face swapped in a live frame."""
