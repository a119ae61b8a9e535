"""Where training and service meet: what a bundle is. No framework is imported here."""
