"""The serving half: never imports training, and imports no runtime outside `service.engines`."""
