"""How frames travel between the browser and the pipeline."""
