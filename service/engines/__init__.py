"""What executes a bundle's step: the only files of the service that import a runtime."""
