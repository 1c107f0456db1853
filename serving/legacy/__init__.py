"""The contract of AI Platform's custom prediction routines, as the first system documented it."""
