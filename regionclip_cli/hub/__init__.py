"""Models: catalog, download, cache, and the model in the package."""
