"""The training half: series in, bundles out; never imports service."""
