"""Words: class names, templates, text embeddings, concept banks."""
